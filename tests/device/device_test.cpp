// SPDX-License-Identifier: Apache-2.0
// Memory, queues and copies on a device.
#if defined(SEER_CUDA)
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "device_support.hpp"
#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/region.hpp"
#include "seer/device/session.hpp"

namespace seer::device {
namespace {

template <class Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_EQ(error.message().find('\n'), std::string::npos) << "one line";
    return error.message();
  }
  return "";
}

// These run everywhere: the library's error texts need no device.
TEST(CudaErrors, NameTheCallAndTheRemedy) {
  check(cudaSuccess, "cudaFree");
  const auto memory = message_of([] { check(cudaErrorMemoryAllocation, "cudaMalloc"); });
  EXPECT_NE(memory.find("cudaMalloc: out of memory (cudaErrorMemoryAllocation)"), std::string::npos) << memory;
  EXPECT_NE(memory.find("parallel.recompute"), std::string::npos) << memory;
  EXPECT_NE(memory.find("device_test.cpp"), std::string::npos) << memory;
  const auto fault = message_of([] { check(cudaErrorIllegalAddress, "cudaStreamSynchronize"); });
  EXPECT_NE(fault.find("CUDA_LAUNCH_BLOCKING=1"), std::string::npos) << fault;
  const auto broken = message_of([] { check(cudaErrorECCUncorrectable, "cudaStreamSynchronize"); });
  EXPECT_NE(broken.find("--exclude"), std::string::npos) << broken;
}

TEST(DeviceBinding, WithoutADeviceOneLineSaysWhatIsMissing) {
  if (test::no_device().empty()) GTEST_SKIP() << "not run: there is a device here";
  const auto said = message_of([] { bind_device(); });
  EXPECT_TRUE(said.find("driver") != std::string::npos || said.find("no device") != std::string::npos) << said;
  EXPECT_EQ(bound_device(), -1);
  EXPECT_EQ(describe_device(), "");
  EXPECT_EQ(describe().rfind("host: ", 0), 0U);
  EXPECT_NE(message_of([] { Buffer(64, Space::device); }), "");
  EXPECT_NE(message_of([] { DeviceQueue{}; }), "");
}

TEST(DeviceBinding, TheBoundDeviceIsNamed) {
  SEER_NEEDS_DEVICE();
  ASSERT_GE(bound_device(), 0) << "tests/main.cpp binds one";
  const auto text = describe_device();
  EXPECT_EQ(text.rfind("device " + std::to_string(bound_device()) + ": ", 0), 0U) << text;
  for (const char* part : {"GiB", "compute capability", "PCI ", "driver CUDA ", "runtime "}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_EQ(describe().rfind(text, 0), 0U);
  EXPECT_NE(device_id(), "");
}

TEST(DeviceBinding, OtherThreadsUseTheSameDevice) {
  SEER_NEEDS_DEVICE();
  int device = -1;
  std::thread([&] {
    const Buffer buffer(64, Space::device);
    check(cudaGetDevice(&device), "cudaGetDevice");
  }).join();
  EXPECT_EQ(device, bound_device());
}

TEST(DeviceBuffer, IsZero) {
  SEER_NEEDS_DEVICE();
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{1021}, (std::size_t{1} << 20) + 3}) {
    std::vector<unsigned char> back(bytes, 7);
    {
      // The next buffer gets memory that was written to before.
      DeviceQueue made;
      const Buffer dirty(bytes, Space::device);
      copy(made.queue(), back.data(), Space::host, dirty.data(), Space::device, bytes);
      made.queue().wait();
    }
    const Buffer buffer(bytes, Space::device);
    DeviceQueue made;
    copy(made.queue(), buffer.data(), Space::device, back.data(), Space::host, bytes);
    made.queue().wait();
    EXPECT_EQ(back, std::vector<unsigned char>(bytes, 0));
  }
  EXPECT_EQ(Buffer(0, Space::device).data(), nullptr);
}

TEST(DeviceBuffer, OutOfMemorySaysWhatIsThere) {
  SEER_NEEDS_DEVICE();
  const std::size_t free = available_bytes(Space::device);
  ASSERT_GT(free, 0U);
  const std::size_t wanted = std::size_t{1} << 50;
  const auto said = message_of([&] { Buffer(wanted, Space::device); });
  EXPECT_NE(said.find("block of " + std::to_string(wanted) + " bytes"), std::string::npos) << said;
  EXPECT_NE(said.find(" bytes are free"), std::string::npos) << said;
  EXPECT_NE(said.find("parallel.shard"), std::string::npos) << said;
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "later calls must not report this error";
  EXPECT_NE(Buffer(64, Space::device).data(), nullptr) << "the device still works";
}

TEST(DevicePool, LendsWhatWasPlannedAndGivesItBack) {
  SEER_NEEDS_DEVICE();
  Pool planned(Space::planned), real(Space::device);
  const auto go = [](Pool& pool) {
    std::vector<Loan> loans;
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) {
      if (!loans.empty() && random() % 2 == 0) {
        loans.erase(loans.begin() + static_cast<std::ptrdiff_t>(random() % loans.size()));
      } else {
        loans.push_back(pool.bytes(1 + random() % 100000));
      }
    }
  };
  go(planned);
  const auto before = available_bytes(Space::device);
  real.reserve(planned.held_bytes());
  go(real);
  EXPECT_EQ(real.system_allocations(), 1U);
  EXPECT_EQ(real.held_bytes(), planned.held_bytes());
  real.trim();
  EXPECT_EQ(real.held_bytes(), 0U);
  EXPECT_GE(available_bytes(Space::device), before);
}

TEST(DeviceCopy, RoundTripsInOrder) {
  SEER_NEEDS_DEVICE();
  DeviceQueue made;
  auto& queue = made.queue();
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{65537}, (std::size_t{3} << 20) + 5}) {
    PinnedBuffer pinned(bytes), pinned_back(bytes);
    std::vector<unsigned char> plain(bytes), plain_back(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      plain[i] = static_cast<unsigned char>(i * 7 + 1);
      static_cast<unsigned char*>(pinned.data())[i] = static_cast<unsigned char>(i * 5 + 2);
    }
    const Buffer a(bytes, Space::device), b(bytes, Space::device);
    copy(queue, plain.data(), Space::host, a.data(), Space::device, bytes);
    copy(queue, a.data(), Space::device, b.data(), Space::device, bytes);
    copy(queue, pinned.data(), Space::host, a.data(), Space::device, bytes);  // after a was read
    copy(queue, a.data(), Space::device, pinned_back.data(), Space::host, bytes);
    copy(queue, b.data(), Space::device, plain_back.data(), Space::host, bytes);
    queue.wait();
    EXPECT_EQ(plain, plain_back) << bytes;
    EXPECT_EQ(std::memcmp(pinned.data(), pinned_back.data(), bytes), 0) << bytes;
  }
}

TEST(DeviceQueues, OneFollowsAnother) {
  SEER_NEEDS_DEVICE();
  DeviceQueue first, second(DeviceQueue::Priority::high);
  const std::size_t bytes = std::size_t{64} << 20;
  PinnedBuffer ones(bytes), back(bytes);
  std::memset(ones.data(), 1, bytes);
  const Buffer a(bytes, Space::device);
  for (int i = 0; i < 4; ++i) copy(first.queue(), ones.data(), Space::host, a.data(), Space::device, bytes);
  second.follow(first.queue());
  copy(second.queue(), a.data(), Space::device, back.data(), Space::host, bytes);
  second.queue().wait();
  EXPECT_EQ(std::memcmp(ones.data(), back.data(), bytes), 0);
  second.follow(Queue{});  // the host's has always finished
}

TEST(DeviceRegions, NestWithoutAProfiler) {
  const Region outer("update");
  const Region none(nullptr), inner("forward");
}

}  // namespace
}  // namespace seer::device
#endif
