// SPDX-License-Identifier: Apache-2.0
// A device queue that owns its stream (host builds refuse to make one), and a clock for device queues.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Runs its work in the order of submission, concurrently with other queues. Throws Error(device).
class DeviceQueue {
 public:
  /// If both wait, work of high priority starts first. For communication during the backward pass.
  enum class Priority : std::uint8_t { normal, high };
  explicit DeviceQueue(Priority priority = Priority::normal);
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;
  /// Waits for work that still runs.
  ~DeviceQueue();

  Queue& queue() { return queue_; }
  /// Makes work submitted to this queue from now on wait for all work submitted to `other` so far. Does not block the
  /// caller.
  void follow(const Queue& other);

 private:
  Queue queue_;
  void* event_ = nullptr;
};

/// Measures how long a device queue spends on each kind of work: the program puts marks into it between pieces of work,
/// and reads them when the queue has passed them. Device queues only. Idle time of the queue counts towards the mark
/// before it.
class QueueClock {
 public:
  explicit QueueClock(const Queue& queue) : queue_(queue) {}

  /// Work put into the queue from now on counts towards `label`. Ignored if there are already kMost unread marks.
  void mark(int label);
  /// Waits for the queue and calls told(label, ms) for every interval between two marks. The last mark stays, as the
  /// first one of the next reading.
  void read(const std::function<void(int label, double ms)>& told);

 private:
  static constexpr std::size_t kMost = 16384;
  Queue queue_;
  std::vector<std::unique_ptr<void, void (*)(void*)>> events_;  ///< created when first needed, then reused
  std::vector<int> labels_;                                     ///< of the first labels_.size() events
};

}  // namespace seer::device
