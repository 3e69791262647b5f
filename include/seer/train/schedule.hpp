// SPDX-License-Identifier: Apache-2.0
// Learning rates (method.md 5.2): pure functions of the update, except `plateau`, whose state is in checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::train {

/// Number of updates of a run over `images` images: schedule.total_updates, or that of schedule.epochs. `ahead`: how
/// many more images the run has seen than updates times batch, because its batch size was changed. Error(input) if the
/// epochs make less than one update.
std::int64_t total_updates(const config::Config& config, std::uint64_t images, std::int64_t ahead);

/// The key that sets the length: "schedule.epochs = 20".
std::string length_text(const config::Config& config);

/// The update and rate from which a cosine of a new length continues.
struct KeptRate {
  std::int64_t update = 0;
  double rate = 0;
};

class Schedule {
 public:
  /// Error(input) if the numbers contradict each other (warm-up longer than the run, milestones not ascending).
  Schedule(const config::Schedule& schedule, std::int64_t total_updates, std::optional<KeptRate> kept = {});

  /// Rate of 0-based update t. Warm-up: linear from lr_start to lr_peak (which it does not reach). Then
  ///   cosine:    final + (peak - final)/2 (1 + cos(pi t / total)), t counted from the run's start: NOT restarted, so
  ///              the rate drops at the end of the warm-up, as in the released recipe; from a kept rate on
  ///              final + (rate - final)/2 (1 + cos(pi (t - update) / (total - update)));
  ///   plateau:   peak times plateau_factor^n, not below plateau_minimum;
  ///   multistep: peak times milestone_factor for each milestone reached.
  double lr(std::int64_t update) const;

  /// Takes the loss of an update, averaged over ranks (equal on all). Only `plateau` uses it, after the warm-up: it
  /// cuts the rate if the mean loss of a window of updates is not below (1 - threshold) of the best window before.
  void observe(std::int64_t update, double loss);
  /// The plateau's state for checkpoints: factor, best window, sum and count of the open window.
  std::vector<double> state() const;
  void restore(const std::vector<double>& state);

  std::int64_t total_updates() const { return total_updates_; }
  const std::optional<KeptRate>& kept() const { return kept_; }

 private:
  config::Schedule config_;
  std::int64_t total_updates_;
  std::optional<KeptRate> kept_;
  double factor_ = 1, best_ = 0, sum_ = 0, count_ = 0;
};

}  // namespace seer::train
