// SPDX-License-Identifier: Apache-2.0
#include "seer/train/phases.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <sstream>
#include <thread>

namespace seer::train {
namespace {

void busy(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}
double sum_of(const PhaseTimes& t) {
  return std::accumulate(t.ms.begin(), t.ms.end(), 0.0);
}

TEST(Phases, RowsAddUpToTheWallTime) {
  Phases phases;
  for (int i = 0; i < 3; ++i) {
    {
      const auto timer = phases.time(Phase::forward);
      busy(4);
    }
    {
      const auto timer = phases.time(Phase::backward);
      busy(6);
    }
    busy(2);  // in no phase
    phases.end_update();
  }
  const auto& t = phases.total();
  EXPECT_EQ(t.updates, 3);
  EXPECT_NEAR(sum_of(t), t.wall_ms, 1e-6 * t.wall_ms);
  EXPECT_GE(t.per_update_ms(Phase::forward), 4);
  EXPECT_GE(t.per_update_ms(Phase::backward), 6);
  EXPECT_GE(t.per_update_ms(Phase::other), 2);
  EXPECT_GE(t.step_ms(), 12);
}

TEST(Phases, InnerTimeIsTakenOffTheOuterPhase) {
  Phases phases;
  {
    const auto forward = phases.time(Phase::forward);
    busy(3);
    {
      const auto sync = phases.time(Phase::bn_sync);
      busy(20);
    }
  }
  phases.end_update();
  EXPECT_GE(phases.total().per_update_ms(Phase::bn_sync), 20);
  EXPECT_GE(phases.total().per_update_ms(Phase::forward), 3);
  EXPECT_NEAR(sum_of(phases.total()), phases.total().wall_ms, 1e-6 * phases.total().wall_ms);
}

TEST(Phases, AddedTimeIsTakenOffTheRunningTimerOnly) {
  Phases phases;
  phases.add(Phase::data_wait, 0.25);  // no timer runs
  {
    const auto outer = phases.time(Phase::backward);
    busy(10);
    phases.add(Phase::bn_sync, 7);
  }
  phases.end_update();
  const auto& t = phases.total();
  EXPECT_DOUBLE_EQ(t.per_update_ms(Phase::bn_sync), 7);
  EXPECT_DOUBLE_EQ(t.per_update_ms(Phase::data_wait), 0.25);
  EXPECT_GE(t.per_update_ms(Phase::backward), 3);
  EXPECT_LE(t.per_update_ms(Phase::backward), t.step_ms() - 7);
}

TEST(Phases, IntervalIsEmptiedAndTotalIsNot) {
  Phases phases;
  phases.add(Phase::reduce, 0.5);
  busy(1);
  phases.end_update();
  phases.add(Phase::reduce, 1.5);
  busy(2);
  phases.end_update();
  const auto interval = phases.take_interval();
  EXPECT_EQ(interval.updates, 2);
  EXPECT_DOUBLE_EQ(interval.per_update_ms(Phase::reduce), 1);
  EXPECT_EQ(phases.take_interval().updates, 0);
  EXPECT_DOUBLE_EQ(phases.take_interval().per_update_ms(Phase::reduce), 0);
  EXPECT_EQ(phases.total().updates, 2);
}

TEST(Phases, RestartForgetsSetUp) {
  Phases phases;
  busy(30);
  phases.add(Phase::checkpoint, 25);
  const auto began = std::chrono::steady_clock::now();
  phases.restart();
  phases.end_update();
  const std::chrono::duration<double, std::milli> since = std::chrono::steady_clock::now() - began;
  EXPECT_LE(phases.total().wall_ms, since.count());
  EXPECT_DOUBLE_EQ(phases.total().per_update_ms(Phase::checkpoint), 0);
}

TEST(Phases, TableShowsSharesAndLeavesOutWhatDidNotHappen) {
  PhaseSummary s;
  s.updates = 40;
  s.ranks = 2;
  s.mean_ms[static_cast<std::size_t>(Phase::forward)] = 30;
  s.min_ms[static_cast<std::size_t>(Phase::forward)] = 20;
  s.max_ms[static_cast<std::size_t>(Phase::forward)] = 40;
  s.mean_ms[kPhases] = s.min_ms[kPhases] = s.max_ms[kPhases] = 120;
  EXPECT_EQ(to_table(s),
            "time per update, mean of 40 updates on 2 ranks\n"
            "  phase               ms    share  fastest rank  slowest rank\n"
            "  forward          30.00   25.0 %         20.00         40.00\n"
            "  update          120.00  100.0 %        120.00        120.00");
}

}  // namespace
}  // namespace seer::train
