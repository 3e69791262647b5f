// SPDX-License-Identifier: Apache-2.0
// The back ends that the kernel suites run on. A suite keeps its arrays in host memory and calls the kernels with a
// MirroredQueue (mirrored_kernels.hpp): on the host it is the host's queue, on a device each call takes its arrays
// there and its results back, so that one test serves both.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "device_support.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#if !defined(SEER_CUDA)
#include "seer/device/stand_in.hpp"
#endif
#include "seer/kernels/batchnorm.hpp"

namespace seer::test {

using device::Space;

/// In a host build the second one is the stand-in: memory apart, in which the host computes.
inline const auto kSpaces = testing::Values(Space::host, Space::device);

inline std::string name_of(Space space) {
#if defined(SEER_CUDA)
  return space == Space::host ? "host" : "device";
#else
  return space == Space::host ? "host" : "stand_in";
#endif
}

/// Why kernels cannot run there; "" where they can.
inline std::string no_kernels([[maybe_unused]] Space space) {
#if defined(SEER_KERNELS_CUDA)
  if (space == Space::device) return no_device();
#elif defined(SEER_CUDA)
  if (space == Space::device) return "not run: the Kokkos of this build has no Cuda, so its kernels are the host's";
#endif
  return "";
}

/// First line of SetUp() or of a test that runs on a space.
#define SEER_NEEDS_SPACE(space)                                                                                  \
  do {                                                                                                           \
    if (const std::string seer_why = seer::test::no_kernels(space); !seer_why.empty()) GTEST_SKIP() << seer_why; \
  } while (false)

class MirroredQueue {
 public:
  explicit MirroredQueue(Space space = Space::host) {
    if (space == Space::host) return;
#if !defined(SEER_CUDA)
    stand_in_ = std::make_unique<device::StandIn>();
#endif
    stream_ = std::make_unique<device::DeviceQueue>();
  }

  /// Arrays of one call where its kernels are.
  class There {
   public:
    explicit There(device::Queue& queue) : queue_(queue) {}
    template <class T, class Count>
    T* operator()(T* host, Count count) {
      if (queue_.space == Space::host || host == nullptr) return host;
      return static_cast<T*>(array(host, static_cast<std::size_t>(count) * sizeof(T), !std::is_const_v<T>));
    }
    device::Tensor operator()(device::Tensor tensor) {
      if (queue_.space == Space::host || tensor.data == nullptr) return tensor;
      tensor.data = array(tensor.data, static_cast<std::size_t>(tensor.bytes()), true);
      tensor.space = queue_.space;
      return tensor;
    }
    kernels::BatchNorm operator()(const kernels::BatchNorm& bn, std::int64_t c) {
      return {(*this)(bn.mean, c), (*this)(bn.inv_std, c), (*this)(bn.gamma, c), (*this)(bn.beta, c)};
    }
    kernels::BatchNormGradient operator()(const kernels::BatchNormGradient& g) {
      const auto per_image = g.d_y.shape.n * g.d_y.shape.c;
      return {(*this)(g.d_y),
              g.relu,
              (*this)(g.gate, per_image),
              (*this)(g.d_pooled, per_image),
              (*this)(g.open, 2 * per_image),
              (*this)(g.d_open, 2 * per_image)};
    }
    void bring_back() {
      for (auto& [host, mirror] : mirrors_) {
        if (!mirror.written) continue;
        device::copy(queue_, mirror.buffer.data(), Space::device, const_cast<void*>(host), Space::host, mirror.bytes);
      }
      queue_.wait();
    }

   private:
    struct Mirror {
      device::Buffer buffer;
      std::size_t bytes = 0;
      bool written = false;
    };
    /// The same host memory has one place there: results may lie over operands.
    void* array(const void* host, std::size_t bytes, bool written) {
      Mirror& mirror = mirrors_[host];
      if (mirror.bytes == 0) {
        mirror.buffer = device::Buffer(std::max<std::size_t>(bytes, 1), Space::device);
        mirror.bytes = bytes;
        device::copy(queue_, host, Space::host, mirror.buffer.data(), Space::device, bytes);
      }
      EXPECT_EQ(mirror.bytes, bytes) << "a call's arrays overlap";
      mirror.written = mirror.written || written;
      return mirror.buffer.data();
    }
    device::Queue& queue_;
    std::map<const void*, Mirror> mirrors_;
  };

  /// call(queue, there)
  template <class Call>
  auto run(const Call& call) {
    device::Queue& queue = stream_ ? stream_->queue() : host_;
    There there(queue);
    if constexpr (std::is_void_v<decltype(call(queue, there))>) {
      call(queue, there);
      there.bring_back();
    } else {
      const auto result = call(queue, there);
      there.bring_back();
      return result;
    }
  }

 private:
  device::Queue host_;
#if !defined(SEER_CUDA)
  std::unique_ptr<device::StandIn> stand_in_;
#endif
  std::unique_ptr<device::DeviceQueue> stream_;  // ends before the stand-in
};

/// A suite that runs on each of them, with a queue there.
class OnSpace : public testing::TestWithParam<Space> {
 protected:
  void SetUp() override {
    SEER_NEEDS_SPACE(GetParam());
    queue = MirroredQueue(GetParam());
  }
  MirroredQueue queue;
};
#define SEER_ON_ALL_SPACES(Suite)                              \
  class Suite : public seer::test::OnSpace {};                 \
  INSTANTIATE_TEST_SUITE_P(Spaces, Suite, seer::test::kSpaces, \
                           [](const auto& test) { return seer::test::name_of(test.param); })

}  // namespace seer::test
