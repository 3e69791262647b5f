// SPDX-License-Identifier: Apache-2.0
// The optimizer, and the schedule of its rate (method.md 5.1, 5.2).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::train {

/// LARS or SGD over the flat blocks. Each tensor is treated as registered (nn::Treatment). Norms, flags and the rule
/// lie in the queue's memory, so an update does not wait for the host (but read_squares()).
class Optimizer {
 public:
  /// A part of the blocks that is handled at once: consecutive tensors, each cut to what this rank holds of it.
  struct Part {
    std::size_t first_tensor = 0;
    kernels::FlatRanges ranges;  ///< relative to the begin of the part
    std::size_t end_tensor() const { return first_tensor + static_cast<std::size_t>(ranges.ranges()); }
  };
  /// The tensors in [begin, end) of the block.
  static Part part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end, device::Space space);

  /// The table must stay. `queue`: the one that all calls get.
  Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue);

  /// Number of the next update, from 0. Tensors that are frozen in it take no part: no decay, no momentum. Those in
  /// their ramp move at a part of the rate (method.md 5.2).
  void set_update(std::int64_t update);

  /// The gradients in memory are multiplied by `scale` (the loss scale): norms, LARS and step divide by it.
  void set_gradient_scale(double scale) { rule_.gradient_factor = static_cast<float>(1 / scale); }

  /// Take squared norms of this part's tensors, as far as this rank holds them. Pointers are to the begin of the part.
  void measure_gradients(device::Queue& queue, const Part& part, const float* gradients);
  void measure_parameters(device::Queue& queue, const Part& part, const float* parameters);
  /// Instead of measure_gradients: copies them. `known`: one for each tensor of the table.
  void take_gradient_squares(device::Queue& queue, const Part& part, const double* known);
  /// Packs the squared norms of the tensors [first, last) into one message, to be summed over ranks with other parts.
  std::span<double> pack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  /// Copies them back from the message.
  void unpack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  void forget_squares(device::Queue& queue);
  /// Call before gradient_norm() and not_finite(). Waits for a device.
  void read_squares(device::Queue& queue) {
    squares_.fetch(queue);
    queue.wait();
  }
  /// Square root of the sum of squares of all gradients, except frozen tensors. Not finite if the gradients are not.
  double gradient_norm() const;
  /// Name of the first tensor, in the order of the backward pass, whose summed gradient is not finite, or "".
  std::string not_finite() const;
  /// Sets the rate of the next steps. On a device, the previous step must have finished.
  void set_rate(device::Queue& queue, double lr);
  /// Updates momenta and parameters in place. Needs the squares of the same gradients. With `measures`, also takes the
  /// squared norms of the new parameters.
  void step(device::Queue& queue, const Part& part, const float* gradients, float* momenta, float* parameters,
            bool measures);

 private:
  bool is_frozen(std::size_t tensor) const { return (own_[tensor].flags & kernels::kSkipped) != 0; }
  /// Squared norms of the gradients, then of the parameters.
  double* gradient_squares(std::size_t tensor) const { return squares_.on_queue() + tensor; }
  double* parameter_squares(std::size_t tensor) const { return gradient_squares(own_.size() + tensor); }
  double* message() const { return static_cast<double*>(message_.data()); }

  bool planned_;
  kernels::UpdateRule rule_;
  const nn::ParameterTable* table_;
  std::vector<kernels::RangeRule> own_;              ///< of each tensor
  device::Mirrored<kernels::UpdateRule> sent_rule_;  ///< what step() uses
  device::Mirrored<kernels::RangeRule> sent_own_;
  device::Mirrored<double> squares_;
  device::Buffer message_;  ///< squares of some tensors, for a sum over ranks
};

/// Number of updates of a run over `images` images: schedule.total_updates, or that of schedule.epochs. `ahead`: how
/// many more images the run has seen than updates times batch, because its batch size was changed. Error(input) if the
/// epochs make less than one update.
std::int64_t total_updates(const config::Config& config, std::uint64_t images, std::int64_t ahead);

/// The key that sets the length: "schedule.epochs = 20".
std::string length_text(const config::Config& config);

/// [schedule] of a run over `images` images, with schedule.milestone_epochs as milestones: the first update that sees
/// no image of the first e passes, ceil(e images / batch). Error(input) without schedule.epochs or beside milestones.
config::Schedule in_updates(const config::Config& config, std::uint64_t images);

/// The update and rate from which a cosine of a new length continues.
struct KeptRate {
  std::int64_t update = 0;
  double rate = 0;
};

/// Learning rates (method.md 5.2): pure functions of the update, except `plateau`, whose state is in checkpoints.
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
  std::vector<double> state() const { return {factor_, best_, sum_, count_}; }
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
