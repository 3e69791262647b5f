// SPDX-License-Identifier: Apache-2.0
// On a device, several collectives run at the same time, and another thread reports that they have ended.
#include "seer/comm/progress.hpp"

#include <gtest/gtest.h>

namespace seer::comm {
namespace {

TEST(Ring, SeveralUnderWayEndOneAfterTheOther) {
  auto* trace = trace_of(MPI_COMM_WORLD);
  rename(trace, "ring test");
  const auto before = trace->entered.load();
  const auto first = open_mark(trace, "all_reduce", 8), second = open_mark(trace, "all_gather", 16);
  EXPECT_EQ(trace->entered - before, 2);
  EXPECT_EQ(trace->left - before, 0);
  close_mark(first);
  EXPECT_EQ(trace->left - before, 1);
  const auto passed = last_collectives();
  ASSERT_GE(passed.size(), 2U);
  EXPECT_GT(passed[passed.size() - 2].left_ns, 0);
  EXPECT_EQ(passed.back().left_ns, 0) << "not left yet";
  EXPECT_STREQ(passed.back().kind, "all_gather");
  close_mark(second);
  EXPECT_EQ(trace->left - before, 2);
  release(trace);
}

TEST(Ring, WhatIsToldLateTakesNothingBack) {
  auto* trace = trace_of(MPI_COMM_WORLD);
  const auto before = trace->entered.load();
  const auto on_device = open_mark(trace, "all_reduce", 8);
  { const Mark over_mpi(trace, "barrier", 0); }
  EXPECT_EQ(trace->left - before, 2);
  close_mark(on_device);
  EXPECT_EQ(trace->left - before, 2);
  close_mark({});  // a communicator that records nothing
  release(trace);
}

}  // namespace
}  // namespace seer::comm
