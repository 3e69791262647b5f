// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/stream.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace seer::comm {
namespace {

class StreamTest : public testing::TestWithParam<bool> {};

TEST_P(StreamTest, RunsJobsInTheirOrderAndWaitsForThem) {
  Stream stream(GetParam());
  std::vector<int> done;
  Stream::Ticket third = 0;
  for (int i = 0; i < 100; ++i) {
    const auto ticket = stream.post([&done, i] { done.push_back(i); });
    if (i == 2) third = ticket;
  }
  stream.wait(third);
  EXPECT_TRUE(stream.done(third));
  EXPECT_FALSE(stream.done(101));
  stream.wait_all();
  ASSERT_EQ(done.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(done[static_cast<std::size_t>(i)], i);
}

TEST_P(StreamTest, AnErrorReachesWhoeverWaitsAndStopsWhatComesAfter) {
  Stream stream(GetParam());
  bool ran = false;
  stream.post([] { throw std::runtime_error("lost"); });
  const auto after = stream.post([&ran] { ran = true; });
  EXPECT_THROW(stream.wait(after), std::runtime_error);
  EXPECT_FALSE(ran);
}

TEST_P(StreamTest, CountsTheTimeOfJobs) {
  Stream stream(GetParam());
  stream.post([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
  stream.wait_all();
  const double busy = stream.take_busy_ms();
  EXPECT_GE(busy, 19);
  EXPECT_EQ(stream.take_busy_ms(), 0);
}

INSTANTIATE_TEST_SUITE_P(ThreadedOrNot, StreamTest, testing::Bool());

}  // namespace
}  // namespace seer::comm
