// SPDX-License-Identifier: Apache-2.0
#include "seer/run/saver.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace seer::run {
namespace {

TEST(CheckpointInterval, YoungAndDaly) {
  EXPECT_DOUBLE_EQ(best_interval_s(18, 0, 100), 60);
  EXPECT_DOUBLE_EQ(best_interval_s(18, 75, 100), 75) << "the one before must have been written";
  EXPECT_DOUBLE_EQ(best_interval_s(300, 0, 100), 300) << "failures so frequent that nothing helps";
  // It is the least of the expected losses.
  const double cost = 20, mtbf = 40000, best = best_interval_s(cost, 0, mtbf);
  for (const double factor : {0.5, 0.8, 1.25, 2.0}) {
    EXPECT_LT(lost_share(cost, 0, best, mtbf), lost_share(cost, 0, factor * best, mtbf)) << factor;
  }
}

TEST(CheckpointInterval, FixedOnesAreMultiples) {
  config::Checkpoint config;
  config.every_updates = 30;
  const auto world = comm::Communicator::world();
  CheckpointInterval interval(config, 1, 7);
  EXPECT_FALSE(interval.automatic());
  for (std::int64_t t = 8; t <= 90; ++t) {
    EXPECT_EQ(interval.due(t), t == 30 || t == 60 || t == 90) << t;
    interval.add_update(1, false);
    if (interval.due(t)) interval.add_save(world, t, 100, 100);
  }
}

TEST(CheckpointInterval, AutoFollowsWhatIsMeasured) {
  config::Checkpoint config;
  config.every_updates = 0;
  config.mean_time_between_failures_hours = 2;
  const auto world = comm::Communicator::world();
  CheckpointInterval interval(config, 4, 100);  // the job fails every 1800 s
  EXPECT_TRUE(interval.automatic());
  std::int64_t t = 100;
  const auto until_due = [&](double update_s, auto writing) {
    const auto first = t;
    do interval.add_update(update_s, writing(t++ - first));
    while (!interval.due(t));
    return t - first;
  };
  const auto never = [](std::int64_t) { return false; };
  EXPECT_EQ(until_due(0.5, never), CheckpointInterval::kFirstUpdates);
  interval.add_save(world, t, 1.0, 0);  // sqrt(2 * 1 * 1800) = 60 s
  EXPECT_EQ(until_due(0.5, never), 120);
  EXPECT_EQ(interval.updates(), 120);
  interval.add_save(world, t, 4.0, 0);  // 120 s
  EXPECT_EQ(until_due(0.25, never), 240);
  // 0.25 s an update, 0.1 s of stall and 240 s of writing: no more often than they can be written.
  interval.add_save(world, t, 0.1, 240.0);
  EXPECT_EQ(interval.updates(), 960);
}

TEST(CheckpointInterval, WhatWritingTakesFromTheUpdatesCounts) {
  config::Checkpoint config;
  config.every_updates = 0;
  config.mean_time_between_failures_hours = 0.5;
  const auto world = comm::Communicator::world();
  CheckpointInterval interval(config, 1, 0);
  // 10 updates beside the writing take 0.1 s longer: with the stall of 1 s, 2 s.
  for (int i = 0; i < 10; ++i) interval.add_update(1.1, true);
  for (int i = 0; i < 10; ++i) interval.add_update(1.0, false);
  interval.add_save(world, 20, 1.0, 11.0);
  EXPECT_EQ(interval.updates(), std::lround(std::sqrt(2 * 2.0 * 1800) / 1.05));
}

}  // namespace
}  // namespace seer::run
