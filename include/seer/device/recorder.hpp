// SPDX-License-Identifier: Apache-2.0
// Times the work of a queue by labels: kernels of ours under the names of their functions, library calls under their
// titles. Work inside other work counts only as the inner one. Costs nothing while no recorder lives.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/device/device_queue.hpp"

namespace seer::device {

/// Label of the copies of weights in a library's order.
constexpr const char* kWeightsPacked = "packing of weights";

/// Records what its thread puts into the queue, from its construction on. At most one a thread.
class Recorder {
 public:
  static constexpr int kNoSection = -1;
  struct Row {
    std::string label;  ///< empty: what no label claims
    int section = kNoSection;
    std::int64_t calls = 0;
    double ms = 0, bytes = 0, flops = 0;
  };
  /// by_shape: convolutions are labelled by their shapes, and all work by its section, too.
  enum class Convolutions : bool { by_direction, by_shape };

  explicit Recorder(const Queue& queue, Convolutions convolutions = Convolutions::by_direction);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  /// The recorder of this thread, or null.
  static Recorder* current();
  bool by_shape() const { return convolutions_ == Convolutions::by_shape; }
  /// The recorder of this thread, if it wants to know, counts what follows to a section, such as a segment of a
  /// network.
  static void enter(int section);
  /// Takes the times of the work so far. Waits for a device. Call it after every update: a device keeps only so many
  /// marks.
  void read();
  /// In the order of first use.
  const std::vector<Row>& rows() const { return rows_; }

 private:
  friend class Timed;
  bool is_of(const Queue& queue) const { return queue.space == queue_.space && queue.stream == queue_.stream; }
  void mark(int row);
  int row_of(std::string_view label);

  Queue queue_;
  Convolutions convolutions_;
  QueueClock device_clock_;
  Clock clock_;
  double marked_ms_ = 0;
  int open_ = 0;  ///< row to which the time counts now
  std::vector<Row> rows_;
  int section_ = kNoSection;
  std::map<std::string, int> places_;  ///< of a row, by section and label
};

/// One piece of work, until the end of its scope.
class Timed {
 public:
  Timed(const Queue& queue, std::string_view label, double bytes, double flops = 0) {
    if (Recorder::current() != nullptr) begin(queue, label, bytes, flops);
  }
  ~Timed() {
    if (recorder_ != nullptr) recorder_->mark(outer_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  void begin(const Queue& queue, std::string_view label, double bytes, double flops);
  Recorder* recorder_ = nullptr;
  int outer_ = 0;
};

}  // namespace seer::device
