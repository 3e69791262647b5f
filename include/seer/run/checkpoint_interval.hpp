// SPDX-License-Identifier: Apache-2.0
// How often to save: checkpoint.every_updates, or the best interval by Young and Daly.
#pragma once

#include <cstdint>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::run {

/// Seconds of training between two checkpoints that lose the least time, if one costs `cost_s` and the whole job fails
/// every `mean_time_between_failures_s`: sqrt(2 cost MTBF) (Young 1974; Daly 2006, first order). Never less than
/// `cost_s`, nor than `writing_s`, the time to write one beside the training: the next one would have to wait.
double best_interval_s(double cost_s, double writing_s, double mean_time_between_failures_s);
/// Share of the time that goes to checkpoints and to failures with this interval. A failure loses all work since the
/// start of the last complete checkpoint; one that is still being written is lost too.
double lost_share(double cost_s, double writing_s, double interval_s, double mean_time_between_failures_s);

/// Gives the same answers on all ranks.
class CheckpointInterval {
 public:
  /// "auto" saves first after this many updates, to have something to measure.
  static constexpr std::int64_t kFirstUpdates = 20;

  CheckpointInterval(const config::Checkpoint& config, int nodes, std::int64_t start = 0);

  bool automatic() const { return every_ == 0; }
  /// The run goes on after `completed` updates.
  void start_at(std::int64_t completed);
  /// True if a checkpoint is due after `completed` updates.
  bool due(std::int64_t completed) const;
  /// Adds an update: its time without saving, and whether a checkpoint was being written meanwhile.
  void add_update(double seconds, bool writing);
  /// Adds a checkpoint that began after `completed` updates: `stall_s` is how long training stopped for it, `writing_s`
  /// how long the last finished one was being written beside training. Collective if automatic(): the root decides.
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
  Mean quiet_, writing_;  ///< updates since the last checkpoint: alone, and beside writing
};

}  // namespace seer::run
