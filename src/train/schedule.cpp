// SPDX-License-Identifier: Apache-2.0
#include "seer/train/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "seer/base/error.hpp"

namespace seer::train {

std::int64_t total_updates(const config::Config& config, std::uint64_t images, std::int64_t ahead) {
  if (config.schedule.epochs <= 0) return config.schedule.total_updates;
  const double updates = (config.schedule.epochs * static_cast<double>(images) - static_cast<double>(ahead)) /
                         static_cast<double>(config.data.global_batch);
  if (updates >= 1 && updates < 1e12) return static_cast<std::int64_t>(updates);
  throw Error(ExitCode::input,
              fmt::format("schedule.epochs = {} of {} images in batches of {} are {:.3g} updates",
                          config.schedule.epochs, images, config.data.global_batch, updates),
              "use more or fewer epochs, or schedule.total_updates")
      .as_agreed();
}

std::string length_text(const config::Config& config) {
  const auto& s = config.schedule;
  return s.epochs > 0 ? fmt::format("schedule.epochs = {}", s.epochs)
                      : fmt::format("schedule.total_updates = {}", s.total_updates);
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
  if (!std::is_sorted(schedule.milestones.begin(), schedule.milestones.end())) {
    throw Error(ExitCode::input, "schedule.milestones are not in ascending order", "sort them").as_agreed();
  }
}

double Schedule::lr(std::int64_t update) const {
  const auto& c = config_;
  const double t = static_cast<double>(update);
  if (update < c.warmup_updates) {
    return c.lr_start + (c.lr_peak - c.lr_start) * t / static_cast<double>(c.warmup_updates);
  }
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
  if (best_ == 0 || mean < best_ * (1 - config_.plateau_threshold)) {
    best_ = mean;
  } else {
    factor_ *= config_.plateau_factor;
  }
}

std::vector<double> Schedule::state() const {
  return {factor_, best_, sum_, count_};
}

void Schedule::restore(const std::vector<double>& state) {
  if (state.size() != 4) return;
  factor_ = state[0];
  best_ = state[1];
  sum_ = state[2];
  count_ = state[3];
}

}  // namespace seer::train
