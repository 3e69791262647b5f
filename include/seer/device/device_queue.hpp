// SPDX-License-Identifier: Apache-2.0
// A device queue that owns its stream. Host builds refuse to make one.
#pragma once

#include <cstdint>

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

}  // namespace seer::device
