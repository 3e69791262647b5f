// SPDX-License-Identifier: Apache-2.0
// An array that both the queue's kernels and the host use, such as the inputs and results of an update. On a device
// there are two copies, and send() and fetch() copy from one to the other. On the host both are one array, and send()
// and fetch() do nothing.
#pragma once

#include <cstddef>
#include <type_traits>

#include "seer/device/copy.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"

namespace seer::device {

template <class T>
class Mirrored {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Mirrored() = default;
  /// `count` elements, all bits zero. Planned: neither copy exists, and none may be read.
  Mirrored(std::size_t count, Space space) : count_(count), on_queue_(count * sizeof(T), space) {
    if (space == Space::device) on_host_ = PinnedBuffer(on_queue_.bytes());
  }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return on_queue_.bytes(); }
  /// The copy that the queue's kernels read and write.
  T* on_queue() const { return static_cast<T*>(on_queue_.data()); }
  /// The same copy as floats.
  Tensor view() const { return on_queue_.view(); }
  /// The host's copy.
  T* on_host() const { return on_queue_.space() == Space::device ? static_cast<T*>(on_host_.data()) : on_queue(); }

  /// Copies the first `count` elements, or all, from host to queue. The host's copy must not change until the queue has
  /// done this.
  void send(Queue& queue, std::size_t count) {
    if (on_queue_.space() == Space::host) return;
    copy(queue, on_host(), Space::host, on_queue(), queue.space, count * sizeof(T));
  }
  void send(Queue& queue) { send(queue, count_); }
  /// Copies from queue to host. Wait for the queue before you read the host's copy.
  void fetch(Queue& queue) {
    if (on_queue_.space() != Space::host) copy(queue, on_queue(), queue.space, on_host(), Space::host, bytes());
  }

 private:
  std::size_t count_ = 0;
  Buffer on_queue_;
  PinnedBuffer on_host_;  ///< used on a device only
};

}  // namespace seer::device
