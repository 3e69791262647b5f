// SPDX-License-Identifier: Apache-2.0
#include "seer/run/checkpoint_interval.hpp"

#include <algorithm>
#include <cmath>

namespace seer::run {

double best_interval_s(double cost_s, double writing_s, double mean_time_between_failures_s) {
  return std::max({std::sqrt(2 * cost_s * mean_time_between_failures_s), cost_s, writing_s});
}

double lost_share(double cost_s, double writing_s, double interval_s, double mean_time_between_failures_s) {
  return cost_s / interval_s + (interval_s / 2 + writing_s) / mean_time_between_failures_s;
}

CheckpointInterval::CheckpointInterval(const config::Checkpoint& config, int nodes, std::int64_t start)
    : every_(config.every_updates),
      mean_time_between_failures_s_(3600 * config.mean_time_between_failures_hours / nodes) {
  start_at(start);
}

void CheckpointInterval::start_at(std::int64_t completed) {
  last_ = completed;
  next_ = completed + kFirstUpdates;
}

bool CheckpointInterval::due(std::int64_t completed) const {
  return automatic() ? completed >= next_ : completed % every_ == 0;
}

void CheckpointInterval::add_update(double seconds, bool writing) {
  auto& mean = writing ? writing_ : quiet_;
  mean.sum += seconds;
  ++mean.count;
}

void CheckpointInterval::add_save(const comm::Communicator& comm, std::int64_t completed, double stall_s,
                                  double writing_s) {
  // If writing slowed the updates beside it, that is part of the cost. It is unknown if all updates were beside it.
  const double slower_s = quiet_.count > 0 && writing_.count > 0 ? writing_.value() - quiet_.value() : 0;
  const double cost_s = stall_s + std::max(0.0, slower_s) * static_cast<double>(writing_.count);
  const double update_s =
      (quiet_.sum + writing_.sum) / static_cast<double>(std::max<std::int64_t>(1, quiet_.count + writing_.count));
  quiet_ = writing_ = {};
  last_ = completed;
  if (!automatic()) return;
  if (update_s > 0) {
    const double updates = best_interval_s(cost_s, writing_s, mean_time_between_failures_s_) / update_s;
    next_ = completed + static_cast<std::int64_t>(std::clamp(std::round(updates), 1.0, 1e12));
  } else {
    next_ = completed + kFirstUpdates;  // nothing was measured: the save came right after the start
  }
  comm.broadcast(&next_, sizeof next_);
}

}  // namespace seer::run
