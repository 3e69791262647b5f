// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <thread>

#include "device_support.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::device {
namespace {

TEST(QueueClock, StretchesAddUpAndTheLastMarkStays) {
#if defined(SEER_CUDA)
  SEER_NEEDS_DEVICE();
#else
  const StandIn stand_in;
#endif
  DeviceQueue made;
  QueueClock clock(made.queue());
  clock.read([](int, double) { ADD_FAILURE() << "nothing was marked"; });
  constexpr auto kPause = std::chrono::milliseconds(20);
  std::map<int, double> ms;
  const auto add = [&](int label, double more) { ms[label] += more; };
  clock.mark(1);
  std::this_thread::sleep_for(kPause);  // idle time counts towards the mark before it
  const auto began = std::chrono::steady_clock::now();
  clock.mark(2);
  clock.mark(1);
  const std::chrono::duration<double, std::milli> at_once = std::chrono::steady_clock::now() - began;
  std::this_thread::sleep_for(kPause);
  clock.mark(3);
  clock.read(add);
  EXPECT_GE(ms[1], 39);
  EXPECT_LT(ms[2], 20 + at_once.count());
  EXPECT_EQ(ms.count(3), 0U) << "not ended";
  std::this_thread::sleep_for(kPause);
  clock.mark(1);
  clock.read(add);
  EXPECT_GE(ms[3], 19);
}

}  // namespace
}  // namespace seer::device
