// SPDX-License-Identifier: Apache-2.0
// The stand-in device that other suites compute on: the program cannot touch its memory, and copies arrive when the
// program waits for them.
#if !defined(SEER_CUDA)
#include "seer/device/stand_in.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"

namespace seer::device {
namespace {

/// True if this process may read there. If reading would end the program, the kernel returns an error instead.
bool readable(const void* data) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const bool yes = write(ends[1], data, 1) == 1;
  EXPECT_TRUE(yes || errno == EFAULT);
  close(ends[0]);
  close(ends[1]);
  return yes;
}

TEST(StandIn, MemoryIsOutOfReachButForQueuedWork) {
  const StandIn device;
  Buffer buffer(1000, Space::device), other(5 << 20, Space::device);
  EXPECT_FALSE(readable(buffer.data()));
  EXPECT_FALSE(readable(static_cast<char*>(other.data()) + (5 << 20) - 1));
  {
    const StandInAccess access(Space::device);
    EXPECT_TRUE(readable(buffer.data()));
    const Buffer made_meanwhile(64, Space::device);
    const StandInAccess again(Space::device);
    EXPECT_TRUE(readable(made_meanwhile.data()));
  }
  EXPECT_FALSE(readable(buffer.data()));
  const StandInAccess of_host(Space::host);
  EXPECT_FALSE(readable(buffer.data()));
  EXPECT_TRUE(on_stand_in(buffer.data()));
  EXPECT_FALSE(on_stand_in(&buffer));
}

TEST(StandIn, BuffersAreZeroAndApart) {
  const StandIn device;
  DeviceQueue made;
  auto& queue = made.queue();
  std::vector<Buffer> kept;
  for (int round = 0; round < 3; ++round) {
    kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(kept.size() / 2));
    for (std::size_t i = 0; i < 40; ++i) {
      kept.emplace_back(100 * i + 1, Space::device);
      std::vector<char> found(kept.back().bytes(), 1);
      copy(queue, kept.back().data(), Space::device, found.data(), Space::host, found.size());
      EXPECT_EQ(found, std::vector<char>(found.size(), 0));
      const std::vector<char> mark(found.size(), static_cast<char>(kept.size()));
      copy(queue, mark.data(), Space::host, kept.back().data(), Space::device, mark.size());
    }
    for (std::size_t i = kept.size() - 40; i < kept.size(); ++i) {
      std::vector<char> found(kept[i].bytes());
      copy(queue, kept[i].data(), Space::device, found.data(), Space::host, found.size());
      EXPECT_EQ(found, std::vector<char>(found.size(), static_cast<char>(i + 1)));
    }
  }
}

TEST(StandIn, CopiesToPinnedMemoryArriveWithTheWait) {
  const StandIn device;
  DeviceQueue made;
  auto& queue = made.queue();
  const Buffer there(16, Space::device);
  PinnedBuffer here(16);
  const float value = 3;
  copy(queue, &value, Space::host, there.data(), Space::device, 4);
  copy(queue, there.data(), Space::device, here.data(), Space::host, 4);
  EXPECT_EQ(here.f32()[0], 0);
  const float later = 4;
  copy(queue, &later, Space::host, there.data(), Space::device, 4);
  EXPECT_EQ(here.f32()[0], 3) << "a copy from memory that is not pinned waits";
  copy(queue, there.data(), Space::device, here.data(), Space::host, 4);
  queue.wait();
  EXPECT_EQ(here.f32()[0], 4);
}

TEST(StandIn, AddressesOfTheOtherSpaceAreRefused) {
  const StandIn device;
  DeviceQueue made;
  auto& queue = made.queue();
  const Buffer there(16, Space::device);
  float here = 0;
  EXPECT_THROW(copy(queue, &here, Space::device, there.data(), Space::device, 4), Error);
  EXPECT_THROW(copy(queue, there.data(), Space::host, &here, Space::host, 4), Error);
  EXPECT_THROW(expect_reached(queue, &here, "a test"), Error);
  EXPECT_THROW(expect_reached(Queue{}, there.data(), "a test"), Error);
  expect_reached(queue, there.data(), "a test");
  expect_reached(Queue{}, &here, "a test");
}

TEST(StandIn, IsThereWhileOneLives) {
  EXPECT_FALSE(has_stand_in());
  {
    const StandIn device;
    EXPECT_TRUE(has_stand_in());
  }
  EXPECT_FALSE(has_stand_in());
  EXPECT_THROW(Buffer(64, Space::device), Error);
  EXPECT_THROW(StandInAccess(Space::device), Error);
}

}  // namespace
}  // namespace seer::device
#endif
