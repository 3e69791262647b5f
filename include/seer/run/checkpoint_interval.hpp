// SPDX-License-Identifier: Apache-2.0
// How often to save: checkpoint.every_updates, or what Young and Daly find best.
#pragma once

#include <cstdint>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::run {

/// Seconds of training between two checkpoints that lose the least, where one costs `cost_s` and the whole job fails
/// every `mean_time_between_failures_s`: sqrt(2 cost MTBF) (Young 1974; Daly 2006, first order). Never less than
/// `writing_s`, which one takes that is written beside the training: the next would have to wait for it.
double best_interval_s(double cost_s, double writing_s, double mean_time_between_failures_s);
/// Share of the time that goes to checkpoints and to what failures undo, with such an interval: what was done since the
/// last checkpoint was begun, as one that is still being written is lost.
double lost_share(double cost_s, double writing_s, double interval_s, double mean_time_between_failures_s);

/// The same answers on all ranks.
class CheckpointInterval {
 public:
  /// "auto" begins with a checkpoint after so many updates, to have something to measure.
  static constexpr std::int64_t kFirstUpdates = 20;

  CheckpointInterval(const config::Checkpoint& config, int nodes, std::int64_t start = 0);

  bool automatic() const { return every_ == 0; }
  /// The run goes on after so many updates.
  void start_at(std::int64_t completed);
  /// Whether to save after `completed` updates.
  bool due(std::int64_t completed) const;
  /// Tells of an update: its time without saving, and whether a checkpoint was being written meanwhile.
  void add_update(double seconds, bool writing);
  /// Tells of a checkpoint that was begun after `completed` updates: how long the training stood still for it, and how
  /// long the last one whose end is known was being written beside it. Collective where automatic(): the root decides.
  void add_save(const comm::Communicator& comm, std::int64_t completed, double stall_s, double writing_s);
  /// Updates between the last checkpoint and the next.
  std::int64_t updates() const { return automatic() ? next_ - last_ : every_; }

 private:
  struct Mean {
    double sum = 0;
    std::int64_t count = 0;
    double value() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
  };
  std::int64_t every_, last_ = 0, next_ = 0;
  double mean_time_between_failures_s_;
  Mean quiet_, writing_;  ///< updates since the last checkpoint
};

}  // namespace seer::run
