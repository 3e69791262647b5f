// SPDX-License-Identifier: Apache-2.0
// CUDA graphs for repeated work: records it once on a device queue, then submits it in one launch, because launching it
// kernel by kernel would leave the device idle. On the host, and on a planned machine, the work simply runs.
//
// A recording holds the kernels, copies (between device memory and pinned memory) and library calls submitted to the
// queue. Other queues are recorded too, if they follow this one and it follows them at the end. Not allowed in a
// recording: collectives (each is counted and watched while it runs; a BlockCommunicator refuses), waiting for a
// queue, reading a result on the host, allocating device memory, and host code with effects, because it would run only
// once. A replay uses the addresses, shapes and numbers of the recording. Values that may change (learning rates,
// factors) must be in device memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <type_traits>

#include "seer/base/checksum.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// A recording, which can run any number of times. May be empty.
class Graph {
 public:
  explicit operator bool() const { return executable_ != nullptr; }
  /// Number of kernels, copies and the like.
  std::size_t steps() const { return steps_; }
  /// Runs the whole recording, in the queue's order.
  void replay(Queue& queue) const;

 private:
  friend class Recording;
  std::shared_ptr<void> executable_;
  std::size_t steps_ = 0;
};

/// While it exists, work that this thread submits to the device queue is recorded and does not run. Device queues only.
class Recording {
 public:
  explicit Recording(Queue& queue);
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  /// Discards the recording if end() was not called.
  ~Recording();
  Graph end();

 private:
  Queue queue_;
  bool open_ = false;
};

/// Hash of everything that the work depends on and that is not in device memory.
class GraphKey {
 public:
  template <class T>
  GraphKey& add(const T& value) {
    static_assert(std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>,
                  "add its members instead");
    key_ = checksum(&value, sizeof value) ^ (key_ * 0x9e3779b97f4a7c15U + 1);
    return *this;
  }
  GraphKey& add(const Tensor& tensor) { return add(tensor.data).add(tensor.shape).add(tensor.dtype).add(tensor.space); }
  std::uint64_t value() const { return key_; }

 private:
  std::uint64_t key_ = 0;
};

/// True if work on this queue is recorded: on a device, unless SEER_GRAPHS is 0, or a Kokkos tool or a Recorder wants
/// to see every kernel.
bool records(const Queue& queue);

/// The recordings of one piece of work. The first run with a key executes the work normally, so that libraries choose
/// algorithms and scratch memory is allocated; the second run records it; all later runs replay it. One thread, one
/// queue.
class Repeated {
 public:
  /// work() must submit everything to `queue`.
  template <class Work>
  void run(Queue& queue, const GraphKey& key, const Work& work) {
    if (!records(queue)) return work();
    const auto [found, is_new] = known_.try_emplace(key.value());
    if (is_new) {
      if (known_.size() > kMost) std::erase_if(known_, [&](const auto& k) { return k.first != key.value(); });
      return work();
    }
    if (!found->second) {
      Recording recording(queue);
      work();
      found->second = recording.end();
    }
    found->second.replay(queue);
  }
  /// Number of recordings, over all keys.
  std::size_t recorded() const {
    const auto is_recorded = [](const auto& entry) { return static_cast<bool>(entry.second); };
    return static_cast<std::size_t>(std::ranges::count_if(known_, is_recorded));
  }

 private:
  static constexpr std::size_t kMost = 32;  ///< limits the number of recordings if keys never repeat
  std::map<std::uint64_t, Graph> known_;
};

}  // namespace seer::device
