// SPDX-License-Identifier: Apache-2.0
// Measures how long a device queue spends on each kind of work: the program puts marks into it between pieces of work,
// and reads them when the queue has passed them.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Device queues only. Idle time of the queue counts towards the mark before it.
class QueueClock {
 public:
  explicit QueueClock(const Queue& queue) : queue_(queue) {}
  QueueClock(const QueueClock&) = delete;
  QueueClock& operator=(const QueueClock&) = delete;
  ~QueueClock();

  /// Work put into the queue from now on counts towards `label`. Ignored if there are already kMost unread marks.
  void mark(int label);
  /// Waits for the queue and calls told(label, ms) for every interval between two marks. The last mark stays, as the
  /// first one of the next reading.
  void read(const std::function<void(int label, double ms)>& told);

 private:
  static constexpr std::size_t kMost = 16384;
  Queue queue_;
  std::vector<void*> events_;  ///< created when first needed, then reused
  std::vector<int> labels_;    ///< of the first labels_.size() events
};

}  // namespace seer::device
