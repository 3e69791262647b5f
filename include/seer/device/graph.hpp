// SPDX-License-Identifier: Apache-2.0
// Work that comes again alike (CUDA graphs): recorded once on a device queue, then handed to the device in one go,
// where launching it kernel by kernel would keep the device waiting. On the host, and on a planned machine, it simply
// runs.
//
// What is recorded: kernels, copies (between device memory and pinned memory) and library calls that the queue is
// handed, and on other queues, as long as they follow this one and are followed by it at the end. What must not be in
// it: collectives (each is counted and watched while it runs; a DeviceCommunicator refuses), anything that waits for a
// queue, reads a result on the host, asks for device memory, or runs code on the host that matters: that would happen
// once. Addresses, shapes and numbers handed to kernels are those of the recording; what may change (learning rates,
// factors) lies in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <type_traits>
#include <utility>

#include "seer/base/checksum.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// A recording, ready to be run any number of times. Empty where there is none.
class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept { *this = std::move(other); }
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    std::swap(steps_, other.steps_);
    return *this;
  }
  ~Graph();
  explicit operator bool() const { return executable_ != nullptr; }
  /// Kernels, copies and the like.
  std::size_t steps() const { return steps_; }
  /// All of it, in the queue's order.
  void replay(Queue& queue) const;

 private:
  friend class Recording;
  void* executable_ = nullptr;
  std::size_t steps_ = 0;
};

/// While it lives, what this thread hands to the device queue is recorded and does not run. Device queues only.
class Recording {
 public:
  explicit Recording(Queue& queue);
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  /// Gives the recording up, where end() was not reached.
  ~Recording();
  Graph end();

 private:
  Queue queue_;
  bool open_ = false;
};

/// Everything that work depends on and that does not lie in device memory, as one number.
class GraphKey {
 public:
  template <class T>
  GraphKey& add(const T& value) {
    static_assert(std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>,
                  "add its members instead");
    key_ = checksum(&value, sizeof value) ^ (key_ * 0x9e3779b97f4a7c15U + 1);
    return *this;
  }
  GraphKey& add(const Tensor& tensor) {
    const auto& s = tensor.shape;
    return add(tensor.data).add(s.n).add(s.h).add(s.w).add(s.c).add(tensor.dtype).add(tensor.space);
  }
  std::uint64_t value() const { return key_; }

 private:
  std::uint64_t key_ = 0;
};

/// Whether work on this queue is recorded: a device's, unless a Kokkos tool listens, which wants to see every kernel.
bool records(const Queue& queue);

/// The recordings of one piece of work. With a new key it runs as it is, so that libraries choose and scratch memory is
/// taken; the second time it is recorded; from then on it is replayed. One thread, one queue.
class Repeated {
 public:
  /// work() hands all it does to `queue`.
  template <class Work>
  void run(Queue& queue, const GraphKey& key, const Work& work) {
    if (!records(queue)) return work();
    const auto [found, is_new] = known_.try_emplace(key.value());
    if (is_new) {
      if (known_.size() > kMost) forget_but(key.value());
      return work();
    }
    if (!found->second) {
      Recording recording(queue);
      work();
      found->second = recording.end();
    }
    found->second.replay(queue);
  }
  /// Of all keys.
  std::size_t recorded() const;

 private:
  static constexpr std::size_t kMost = 32;  ///< where keys never come again, recordings must not pile up
  void forget_but(std::uint64_t key);
  std::map<std::uint64_t, Graph> known_;
};

}  // namespace seer::device
