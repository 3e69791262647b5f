// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::train {
namespace {

/// The part of its rate at which a tensor moves: 1 / (n + 1) ... n / (n + 1) in the n updates of its ramp, then 1.
double ramp(const nn::Treatment& treatment, std::int64_t update) {
  const auto past = static_cast<double>(update - treatment.frozen_updates);
  return std::clamp((past + 1) / (static_cast<double>(treatment.ramp_updates) + 1), 0.0, 1.0);
}

}  // namespace

Optimizer::Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue)
    : planned_(queue.space == device::Space::planned),
      table_(&table),
      own_(table.entries().size()),
      sent_rule_(1, queue.space),
      sent_own_(own_.size(), queue.space),
      squares_(2 * own_.size(), queue.space),
      message_(squares_.bytes(), queue.space) {
  rule_.momentum = static_cast<float>(config.momentum);
  rule_.weight_decay = static_cast<float>(config.weight_decay);
  rule_.trust = static_cast<float>(config.trust);
  rule_.lars = config.kind == "lars";
  rule_.nesterov = config.nesterov;
}

Optimizer::Part Optimizer::part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end,
                                device::Space space) {
  Part out;
  std::vector<kernels::Range> ranges;
  const auto& tensors = table.entries();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto first = std::max(tensors[i].offset, begin), last = std::min(tensors[i].offset + tensors[i].elems, end);
    if (first >= last) continue;
    if (ranges.empty()) out.first_tensor = i;
    ranges.push_back({first - begin, last - begin});
  }
  if (!ranges.empty()) out.ranges = kernels::FlatRanges(space, ranges);
  return out;
}

void Optimizer::set_update(std::int64_t update) {
  for (std::size_t i = 0; i < own_.size(); ++i) {
    const auto& t = table_->entries()[i].treatment;
    const auto flags = (update < t.frozen_updates ? kernels::kSkipped : 0) | (t.decay ? 0 : kernels::kNoDecay) |
                       (t.trust ? 0 : kernels::kNoTrust);
    own_[i] = {static_cast<float>(t.rate * ramp(t, update)), static_cast<float>(t.own_decay),
               static_cast<std::uint32_t>(flags)};
  }
}

void Optimizer::forget_squares(device::Queue& queue) {
  kernels::fill(queue, squares_.view(), 0);  // a zero double is two zero floats
}

void Optimizer::measure_gradients(device::Queue& queue, const Part& part, const float* gradients) {
  if (part.ranges.ranges() == 0) return;
  kernels::squared_norms(queue, part.ranges, gradients, gradient_squares(part.first_tensor));
}

void Optimizer::measure_parameters(device::Queue& queue, const Part& part, const float* parameters) {
  if (part.ranges.ranges() == 0) return;
  kernels::squared_norms(queue, part.ranges, parameters, parameter_squares(part.first_tensor));
}

void Optimizer::take_gradient_squares(device::Queue& queue, const Part& part, const double* known) {
  device::copy(queue, known + part.first_tensor, queue.space, gradient_squares(part.first_tensor), queue.space,
               static_cast<std::size_t>(part.ranges.ranges()) * sizeof(double));
}

std::span<double> Optimizer::pack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first, bytes = count * sizeof(double);
  device::copy(queue, gradient_squares(first), queue.space, message(), queue.space, bytes);
  device::copy(queue, parameter_squares(first), queue.space, message() + count, queue.space, bytes);
  return {message(), 2 * count};
}

void Optimizer::unpack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first, bytes = count * sizeof(double);
  device::copy(queue, message(), queue.space, gradient_squares(first), queue.space, bytes);
  device::copy(queue, message() + count, queue.space, parameter_squares(first), queue.space, bytes);
}

double Optimizer::gradient_norm() const {
  double sum = 0;
  for (std::size_t i = 0; !planned_ && i < own_.size(); ++i) sum += is_frozen(i) ? 0 : squares_.on_host()[i];
  return std::sqrt(sum) * static_cast<double>(rule_.gradient_factor);
}

std::string Optimizer::not_finite() const {
  for (std::size_t i = planned_ ? 0 : own_.size(); i-- > 0;)
    if (!is_frozen(i) && !std::isfinite(squares_.on_host()[i])) return table_->entries()[i].name;
  return "";
}

void Optimizer::set_rate(device::Queue& queue, double lr) {
  rule_.lr = static_cast<float>(lr);
  if (!planned_) {
    *sent_rule_.on_host() = rule_;
    std::copy(own_.begin(), own_.end(), sent_own_.on_host());
  }
  sent_rule_.send(queue);
  sent_own_.send(queue);
}

void Optimizer::step(device::Queue& queue, const Part& part, const float* gradients, float* momenta, float* parameters,
                     bool measures) {
  if (part.ranges.ranges() == 0) return;
  kernels::optimizer_update(queue, part.ranges, sent_own_.on_queue() + part.first_tensor,
                            parameter_squares(part.first_tensor), gradient_squares(part.first_tensor),
                            sent_rule_.on_queue(), gradients, momenta, parameters,
                            measures ? parameter_squares(part.first_tensor) : nullptr);
}

std::int64_t total_updates(const config::Config& config, std::uint64_t images, std::int64_t ahead) {
  if (config.schedule.epochs <= 0) return config.schedule.total_updates;
  const double updates = (config.schedule.epochs * static_cast<double>(images) - static_cast<double>(ahead)) /
                         static_cast<double>(config.data.global_batch);
  if (updates >= 1 && updates < 1e12) return static_cast<std::int64_t>(updates);
  throw Error(ExitCode::input,
              fmt::format("schedule.epochs = {} with {} images in batches of {} gives {:.3g} updates",
                          config.schedule.epochs, images, config.data.global_batch, updates),
              "use more or fewer epochs, or schedule.total_updates")
      .as_agreed();
}

std::string length_text(const config::Config& config) {
  const auto& s = config.schedule;
  return s.epochs > 0 ? fmt::format("schedule.epochs = {}", s.epochs)
                      : fmt::format("schedule.total_updates = {}", s.total_updates);
}

config::Schedule in_updates(const config::Config& config, std::uint64_t images) {
  auto out = config.schedule;
  if (out.kind != "multistep" || out.milestone_epochs.empty()) return out;
  if (!(out.epochs > 0) || !out.milestones.empty())
    throw Error(ExitCode::input,
                "schedule.milestone_epochs needs schedule.epochs and stands instead of schedule.milestones",
                "set schedule.epochs and leave schedule.milestones out, or count in updates")
        .as_agreed();
  const double updates_per_epoch = static_cast<double>(images) / static_cast<double>(config.data.global_batch);
  for (const double epoch : out.milestone_epochs)
    out.milestones.push_back(static_cast<std::int64_t>(std::ceil(epoch * updates_per_epoch)));
  return out;
}

Schedule::Schedule(const config::Schedule& schedule, std::int64_t total_updates, std::optional<KeptRate> kept)
    : config_(schedule), total_updates_(total_updates), kept_(kept) {
  if (schedule.warmup_updates > total_updates) {
    throw Error(ExitCode::input,
                fmt::format("schedule.warmup_updates = {} is more than the run's {} updates", schedule.warmup_updates,
                            total_updates),
                "shorten the warm-up or lengthen the run")
        .as_agreed();
  }
  if (!std::ranges::is_sorted(config_.milestones))
    throw Error(ExitCode::input, "schedule.milestones are not in ascending order", "sort them").as_agreed();
}

double Schedule::lr(std::int64_t update) const {
  const auto& c = config_;
  const double t = static_cast<double>(update);
  if (update < c.warmup_updates)
    return c.lr_start + (c.lr_peak - c.lr_start) * t / static_cast<double>(c.warmup_updates);
  if (c.kind == "cosine") {
    const double from = kept_ && update >= kept_->update ? static_cast<double>(kept_->update) : 0;
    const double rate = from > 0 ? kept_->rate : c.lr_peak;
    const double left = static_cast<double>(total_updates_) - from, progress = left > 0 ? (t - from) / left : 1;
    return c.lr_final + 0.5 * (rate - c.lr_final) * (1 + std::cos(std::numbers::pi * progress));
  }
  if (c.kind == "plateau") return std::max(c.lr_peak * factor_, std::min(c.plateau_minimum, c.lr_peak));
  const auto reached = std::upper_bound(c.milestones.begin(), c.milestones.end(), update) - c.milestones.begin();
  return c.lr_peak * std::pow(c.milestone_factor, static_cast<double>(reached));
}

void Schedule::observe(std::int64_t update, double loss) {
  if (config_.kind != "plateau" || update < config_.warmup_updates) return;
  sum_ += loss;
  count_ += 1;
  if (count_ < static_cast<double>(config_.plateau_window)) return;
  const double mean = sum_ / count_;
  sum_ = count_ = 0;
  if (best_ == 0 || mean < best_ * (1 - config_.plateau_threshold))
    best_ = mean;
  else
    factor_ *= config_.plateau_factor;
}

void Schedule::restore(const std::vector<double>& state) {
  if (state.size() == 4) std::tie(factor_, best_, sum_, count_) = std::tie(state[0], state[1], state[2], state[3]);
}

}  // namespace seer::train
