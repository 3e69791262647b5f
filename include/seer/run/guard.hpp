// SPDX-License-Identifier: Apache-2.0
// Policy for skipped updates (learner.hpp, Cause). Every skip is logged. After `guard.max_skips_in_a_row` consecutive
// skips the run reloads its last good checkpoint; after `guard.max_reloads` reloads it stops. Overflows under a loss
// scale above 1 are not counted: the scale is halved each time, so if the scale was the cause, they end by themselves.
//
// Decisions depend only on values that are equal on all ranks, so all ranks decide alike. Files are the root's:
// run_dir/skipped.jsonl, one object for every skipped update and every reload, appended to; run_dir/bad_numbers.txt,
// the account of a run that was given up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/config/config.hpp"
#include "seer/train/learner.hpp"

namespace seer::run {

/// Mean and standard deviation of the losses, exponentially weighted: the last `updates` count for most of it.
class LossWindow {
 public:
  explicit LossWindow(std::int64_t updates) : updates_(static_cast<double>(updates)) {}
  void add(double loss);
  /// Whether `loss` is above the mean by more than `z` deviations. Never before the window has been filled once. A
  /// deviation counts as a thousandth of the mean at least: a loss that hardly moves has no outliers.
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
    reload,  ///< the last good checkpoint's values; the numbers of updates, and so data and schedule, run on
  };

  /// `from`: what the run goes on from, if it does.
  Guard(const config::Config& config, bool root, const std::optional<checkpoint::State>& from = {});

  /// For Learner::refuse_losses.
  bool refuses(double loss) const;

  /// After every update; `completed` counts it. Error(numerics), agreed, when another reload than the allowed ones
  /// would be wanted; Error(device), agreed, where a rank's second pass gave other bits and guard.replay_action is
  /// "stop".
  Next observe(std::int64_t completed, const train::Learner::Outcome& outcome);
  /// The checkpoint `folder` is loaded.
  void reloaded(std::int64_t completed, const std::string& folder);
  /// Error(numerics), agreed: the report, and why no more is tried.
  [[noreturn]] void give_up(const std::string& why);

  /// False while updates are bad: a checkpoint written then would be the one to go back to, and undo nothing.
  bool trusts() const { return in_a_row_ == 0; }

  void save(checkpoint::State& state) const;

 private:
  void restore(const checkpoint::State& state);
  void write_line(std::int64_t completed, const train::Learner::Outcome& outcome);
  void append(const std::string& line) const;

  const config::Guard config_;
  const std::string run_dir_;
  const bool root_;
  LossWindow window_;
  std::int64_t in_a_row_ = 0, reloads_ = 0;
  std::vector<std::string> account_;  ///< of this start of the run: every bad update and every reload
};

/// "not finite (loss nan, gradient norm nan), first in the gradient of stem.0.weight on rank 3 (node7); images of the
/// batch there: 5, 17"
std::string describe(const train::Learner::Outcome& outcome);

}  // namespace seer::run
