// SPDX-License-Identifier: Apache-2.0
// Memory and copies in every build. The tests that need a device are in tests/device/device_test.cpp.
#include "seer/device/copy.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "seer/base/error.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"

namespace seer::device {
namespace {

TEST(Copy, OnTheHost) {
  Queue queue;
  const std::vector<float> from = {1, 2, 3};
  std::vector<float> to(3);
  copy(queue, from.data(), Space::host, to.data(), Space::host, 8);
  EXPECT_EQ(to, (std::vector<float>{1, 2, 0}));
  copy(queue, nullptr, Space::host, nullptr, Space::host, 0);
}

TEST(Copy, IsPlannedAsReadAndWritten) {
  struct Sum : NullLedger {
    void work(const Work& work) override { bytes += work.bytes; }
    double bytes = 0;
  } ledger;
  auto queue = Queue::planned(ledger);
  Buffer from(1000, Space::planned), to(1000, Space::planned);
  copy(queue, from.data(), Space::planned, to.data(), Space::planned, 1000);
  EXPECT_EQ(ledger.bytes, 2000);
}

TEST(Copy, DeviceMemoryOnAHostQueueIsRefused) {
  Queue queue;
  float a = 1, b = 2;
  EXPECT_THROW(copy(queue, &a, Space::device, &b, Space::host, 4), Error);
  EXPECT_THROW(copy(queue, &a, Space::planned, &b, Space::host, 4), Error);
  EXPECT_EQ(b, 2);
}

#if !defined(SEER_CUDA)
TEST(HostBuild, RefusesDeviceMemoryAndQueues) {
  EXPECT_THROW(Buffer(64, Space::device), Error);
  Pool pool(Space::device);
  EXPECT_THROW(pool.reserve(64), Error);
  EXPECT_THROW(DeviceQueue{}, Error);
}

TEST(HostBuild, PinnedMemoryIsOrdinary) {
  PinnedBuffer buffer(1000);
  for (int i = 0; i < 250; ++i) EXPECT_EQ(buffer.f32()[i], 0);
  buffer.f32()[249] = 1;
  const PinnedBuffer moved = std::move(buffer);
  EXPECT_EQ(moved.f32()[249], 1);
  EXPECT_EQ(PinnedBuffer(0).data(), nullptr);
}
#endif

}  // namespace
}  // namespace seer::device
