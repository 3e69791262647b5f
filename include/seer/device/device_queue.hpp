// SPDX-License-Identifier: Apache-2.0
// A device queue that owns its stream. Host builds refuse to make one.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"

namespace seer::device {

/// What is handed to it runs in that order, beside what other queues run. Throws Error(device).
class DeviceQueue {
 public:
  /// Work of high priority starts first where both wait: for communication beside the backward pass.
  enum class Priority : std::uint8_t { normal, high };
  explicit DeviceQueue(Priority priority = Priority::normal);
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;
  /// Waits for what runs.
  ~DeviceQueue();

  Queue& queue() { return queue_; }
  /// What is handed to this queue from now on waits for what `other` was handed before now. Does not wait itself.
  void follow(const Queue& other);

 private:
  Queue queue_;
  void* event_ = nullptr;
};

}  // namespace seer::device
