// SPDX-License-Identifier: Apache-2.0
// How long a device queue was at what: marks are put into it between pieces of work, and read when it has passed them.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Device queues only. Time in which the queue has nothing to do counts to the mark before it.
class QueueClock {
 public:
  explicit QueueClock(const Queue& queue) : queue_(queue) {}
  QueueClock(const QueueClock&) = delete;
  QueueClock& operator=(const QueueClock&) = delete;
  ~QueueClock();

  /// What is put into the queue from now on counts to `label`. Marks beyond the first few thousand that nobody reads
  /// are left out.
  void mark(int label);
  /// Waits for the queue; told(label, ms) for every stretch between two marks. The last mark stays, as the first of the
  /// next reading.
  void read(const std::function<void(int label, double ms)>& told);

 private:
  static constexpr std::size_t kMost = 16384;
  Queue queue_;
  std::vector<void*> events_;  ///< made when they are first wanted, and kept
  std::vector<int> labels_;    ///< of the first so many of them
};

}  // namespace seer::device
