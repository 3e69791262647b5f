// SPDX-License-Identifier: Apache-2.0
// Learning rates (method.md 5.2): pure functions of the update, but for `plateau`, whose state is checkpointed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::train {

/// Length of a run over `images` images: schedule.total_updates, or those of schedule.epochs. `ahead`: by how many
/// images the run is ahead of updates times batch, because its batch was another once. Error(input): epochs that are
/// none.
std::int64_t total_updates(const config::Config& config, std::uint64_t images, std::int64_t ahead);

/// Where that comes from: "schedule.epochs = 20".
std::string length_text(const config::Config& config);

/// Where a cosine of another length goes on from the rate it had.
struct KeptRate {
  std::int64_t update = 0;
  double rate = 0;
};

class Schedule {
 public:
  /// Error(input) where the numbers contradict each other (warm-up longer than the run, milestones not ascending).
  Schedule(const config::Schedule& schedule, std::int64_t total_updates, std::optional<KeptRate> kept = {});

  /// Rate of 0-based update t. Warm-up: linear from lr_start to lr_peak (which it does not reach). Then
  ///   cosine:    final + (peak - final)/2 (1 + cos(pi t / total)), t counted from the run's start: it is NOT
  ///   restarted,
  ///              so the rate drops at the end of the warm-up, as in the released recipe; from a kept rate on
  ///              final + (rate - final)/2 (1 + cos(pi (t - update) / (total - update)));
  ///   plateau:   peak times plateau_factor^n, not below plateau_minimum;
  ///   multistep: peak times milestone_factor for each milestone reached.
  double lr(std::int64_t update) const;

  /// The loss of an update, averaged over ranks (equal on all). Only `plateau` listens, after the warm-up: when the
  /// mean of a window of updates is not below (1 - threshold) of the best window before, the rate is cut.
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
