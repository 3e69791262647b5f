// SPDX-License-Identifier: Apache-2.0
// Policy for skipped updates (learner.hpp, Cause). Every skip is logged. After `guard.max_skips_in_a_row` consecutive
// skips the run reloads its last good checkpoint; after `guard.max_reloads` reloads it stops. Overflows under a loss
// scale above 1 are not counted: the scale is halved each time, so if the scale was the cause, they end by themselves.
//
// Decisions depend only on values that are equal on all ranks, so all ranks decide alike. Only the root writes files:
// run_dir/skipped.jsonl gets an object for every skip and reload; run_dir/bad_numbers.txt reports why a run gave up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/config/config.hpp"
#include "seer/train/learner.hpp"

namespace seer::run {

/// Mean and deviation of the losses, exponentially weighted: the last `updates` losses have most of the weight.
class LossWindow {
 public:
  explicit LossWindow(std::int64_t updates) : updates_(static_cast<double>(updates)) {}
  void add(double loss);
  /// True if `loss` is above the mean by more than `z` deviations; false until `updates` losses were seen. A deviation
  /// is at least a thousandth of the mean, so a loss that hardly moves has no outliers.
  bool outlier(double loss, double z) const;

  /// Losses seen, mean, variance.
  std::vector<double> state() const { return {seen_, mean_, variance_}; }
  void restore(double seen, double mean, double variance);

 private:
  double updates_, seen_ = 0, mean_ = 0, variance_ = 0;
};

class Guard {
 public:
  enum class Next : std::uint8_t {
    go_on,
    reload,  ///< load the last good checkpoint; updates, and so data and schedule, count on
  };

  /// `from`: the checkpoint that the run continues, if any.
  Guard(const config::Config& config, bool root, const std::optional<checkpoint::State>& from = {});

  /// For Learner::refuse_losses.
  bool refuses(double loss) const { return config_.loss_z_score > 0 && window_.outlier(loss, config_.loss_z_score); }

  /// Call after every update; `completed` includes it. Error(numerics), agreed, if more reloads than allowed would be
  /// needed; Error(device), agreed, if the second pass of a rank gave other bits and guard.replay_action is "stop".
  Next observe(std::int64_t completed, const train::Learner::Outcome& outcome);
  /// Call after the checkpoint `folder` was loaded.
  void reloaded(std::int64_t completed, const std::string& folder);
  /// Error(numerics), agreed, with the report and `why`: ends the run.
  [[noreturn]] void give_up(const std::string& why);

  /// False while updates are bad. A checkpoint written then would be the one to reload, which would undo nothing.
  bool trusts() const { return in_a_row_ == 0; }

  void save(checkpoint::State& state) const;

 private:
  void write_line(std::int64_t completed, const train::Learner::Outcome& outcome);
  void append(const std::string& line) const;

  const config::Guard config_;
  const std::string run_dir_;
  const bool root_;
  LossWindow window_;
  std::int64_t in_a_row_ = 0, reloads_ = 0;
  std::vector<std::string> account_;  ///< every bad update and reload since this start
};

/// "not finite (loss nan, gradient norm nan), first in the gradient of stem.0.weight on rank 3 (node7); images ..."
std::string describe(const train::Learner::Outcome& outcome);

}  // namespace seer::run
