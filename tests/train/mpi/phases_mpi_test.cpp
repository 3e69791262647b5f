// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "seer/comm/communicator.hpp"
#include "seer/train/phases.hpp"

namespace seer::train {
namespace {

TEST(PhasesMpi, ReduceGivesMeanFastestAndSlowestRank) {
  const auto world = comm::Communicator::world();
  PhaseTimes mine;
  mine.updates = 4;
  mine.ms[static_cast<std::size_t>(Phase::reduce)] = 4.0 * (world.rank() + 1);
  mine.ms[static_cast<std::size_t>(Phase::loss)] = world.rank() == world.size() - 1 ? 8.0 : 0.0;
  mine.wall_ms = 400;
  const auto s = reduce(mine, world);
  const double n = world.size();
  const auto r = static_cast<std::size_t>(Phase::reduce), l = static_cast<std::size_t>(Phase::loss);
  EXPECT_EQ(s.ranks, world.size());
  EXPECT_EQ(s.updates, 4);
  EXPECT_DOUBLE_EQ(s.min_ms[r], 1);
  EXPECT_DOUBLE_EQ(s.max_ms[r], n);
  EXPECT_DOUBLE_EQ(s.mean_ms[r], (n + 1) / 2);
  EXPECT_DOUBLE_EQ(s.min_ms[l], world.size() == 1 ? 2 : 0);
  EXPECT_DOUBLE_EQ(s.max_ms[l], 2);
  EXPECT_DOUBLE_EQ(s.mean_ms[l], 2 / n);
  EXPECT_DOUBLE_EQ(s.mean_ms[kPhases], 100);
  EXPECT_DOUBLE_EQ(s.mean_ms[static_cast<std::size_t>(Phase::forward)], 0);
}

}  // namespace
}  // namespace seer::train
