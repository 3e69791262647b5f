// SPDX-License-Identifier: Apache-2.0
// When a run evaluates itself, and what it remembers of it.
#include "seer/run/evaluations.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace seer::run {
namespace {

std::vector<std::int64_t> updates_of(const EvaluationInterval& interval, std::int64_t total) {
  std::vector<std::int64_t> out;
  for (std::int64_t t = 1; t <= total; ++t)
    if (interval.due(t)) out.push_back(t);
  return out;
}

TEST(EvaluationInterval, IsFixedAndIncludesTheLastUpdate) {
  EXPECT_EQ(updates_of({10, 0, 35}, 35), (std::vector<std::int64_t>{10, 20, 30, 35}));
  EXPECT_EQ(updates_of({0, 0, 35}, 35), std::vector<std::int64_t>{}) << "0: none";
  EXPECT_EQ(EvaluationInterval(10, 0, 35).next(), 10);
  EXPECT_EQ(EvaluationInterval(10, 30, 35).next(), 35);
}

TEST(EvaluationInterval, ByCostKeepsTheShare) {
  const auto world = comm::Communicator::world();
  // An evaluation of 2 s with updates of 0.1 s: 20 updates each, so at most one in 647 updates.
  constexpr double kCost_s = 2, kUpdate_s = 0.1;
  for (const std::int64_t total : {700, 2000, 10000}) {
    EvaluationInterval interval(-1, 0, total);
    std::int64_t evaluations = 0, last = 0;
    for (std::int64_t t = 1; t <= total; ++t) {
      if (interval.due(t)) {
        ++evaluations;
        last = t;
        interval.plan(world, t, kCost_s, kUpdate_s);
      }
      if (interval.guess_due(t)) {
        EXPECT_TRUE(interval.plan(world, t, kCost_s, kUpdate_s));
      }
    }
    const double cost = static_cast<double>(evaluations) * kCost_s, all = static_cast<double>(total) * kUpdate_s + cost;
    EXPECT_LE(cost / all, EvaluationInterval::kMostShare) << total;
    EXPECT_GE(cost / all, 0.4 * EvaluationInterval::kMostShare) << total;
    EXPECT_EQ(last, total) << "the last update is evaluated";
  }
  EvaluationInterval too_short(-1, 0, 600);
  EXPECT_FALSE(too_short.plan(world, 20, kCost_s, kUpdate_s));
  EXPECT_EQ(updates_of(too_short, 600), std::vector<std::int64_t>{600}) << "the last one all the same";
  EXPECT_EQ(updates_of({-1, 0, 7}, 7), std::vector<std::int64_t>{7}) << "too short for a guess";
}

TEST(EvaluationInterval, TheRootsTimesDecide) {
  const auto world = comm::Communicator::world();
  EvaluationInterval interval(-1, 100, 100000);
  EXPECT_TRUE(interval.guess_due(120));
  interval.plan(world, 120, world.is_root() ? 1.0 : 99.0, 0.1);
  for (const auto next : world.all_gather(interval.next())) EXPECT_EQ(next, interval.next());
}

TEST(BestEvaluation, IsTheHighestAndCountsTheOthers) {
  BestEvaluation best;
  EXPECT_TRUE(best.state().empty()) << "a run without evaluations has the state of older versions";
  EXPECT_TRUE(best.take(1, -3, 10)) << "the first is the best, whatever it is";
  EXPECT_FALSE(best.take(1, -3, 20)) << "equal is not better";
  EXPECT_FALSE(best.take(1, std::numeric_limits<double>::quiet_NaN(), 30));
  EXPECT_EQ(best.since, 2);
  EXPECT_TRUE(best.take(1, 5.5, 40));
  EXPECT_EQ(best.since, 0);
  best.take(1, 5, 50);
  const auto again = BestEvaluation::from_state(best.state());
  EXPECT_EQ(again.measure, 1);
  EXPECT_EQ(again.value, 5.5);
  EXPECT_EQ(again.update, 40);
  EXPECT_EQ(again.since, 1);
  const auto json = nlohmann::json::parse(best.to_json());
  EXPECT_EQ(json.at("checkpoint"), "checkpoints/update-00000040");
  EXPECT_EQ(json.at("measure"), "watch_rankme");
  EXPECT_TRUE(best.take(0, 1, 60)) << "another measure begins anew";
  EXPECT_EQ(BestEvaluation::from_state({7, 1, 1, 1}).measure, -1) << "a measure of a later version";
}

TEST(BestEvaluation, BeginsAnewInAnotherSetting) {
  BestEvaluation best;
  best.take(0, 50, 10, 7);
  best.take(0, 40, 20, 7);
  best = BestEvaluation::from_state(best.state());
  EXPECT_TRUE(best.compares(0, 7));
  EXPECT_FALSE(best.compares(0, 8));
  EXPECT_FALSE(best.compares(1, 7));
  EXPECT_TRUE(best.take(0, 30, 30, 8));
  EXPECT_EQ(best.since, 0);
  EXPECT_EQ(best.setting, 8);
  best = BestEvaluation::from_state({0, 50, 10, 2});
  EXPECT_TRUE(best.compares(0, 8)) << "of an earlier version: the setting is not known";
  EXPECT_FALSE(best.take(0, 40, 20, 8));
  EXPECT_EQ(best.since, 3);
  EXPECT_FALSE(best.compares(0, 7));
}

}  // namespace
}  // namespace seer::run
