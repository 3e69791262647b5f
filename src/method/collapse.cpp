// SPDX-License-Identifier: Apache-2.0
#include "seer/method/collapse.hpp"

#include <fmt/format.h>

#include <cmath>

namespace seer::method {

CollapseWatch::CollapseWatch(const config::Config& config)
    : ln_prototypes_(std::log(static_cast<double>(config.head.prototypes))),
      prototypes_(config.head.prototypes),
      global_batch_(config.data.global_batch),
      queue_length_(config.swav.queue_length),
      freeze_updates_(config.swav.freeze_prototypes_updates),
      epsilon_(config.swav.epsilon),
      lr_peak_(config.schedule.lr_peak) {}

std::optional<std::string> CollapseWatch::observe(std::int64_t update, double loss) {
  if (!std::isfinite(loss)) return std::nullopt;
  if (last_update_ < 0) {
    smoothed_ = loss;
  } else {
    const double keep = std::exp(-static_cast<double>(update - last_update_) / kSmoothingUpdates);
    smoothed_ = keep * smoothed_ + (1 - keep) * loss;
  }
  last_update_ = update;
  if (update <= freeze_updates_ || std::abs(smoothed_ - ln_prototypes_) > kTolerance * ln_prototypes_) {
    near_since_ = -1;
    warned_ = false;
    return std::nullopt;
  }
  if (near_since_ < 0) near_since_ = update;
  if (warned_ || update - near_since_ < kWindowUpdates) return std::nullopt;
  warned_ = true;
  return warning(update);
}

std::string CollapseWatch::warning(std::int64_t update) const {
  auto text = fmt::format(
      "collapse: from update {} to {} the smoothed loss ({:.4f}) stayed within 1 % of ln K = {:.4f} (K = {} "
      "prototypes), which is what a network gives that predicts the same for every image. Unless it falls soon, start "
      "again with:",
      near_since_, update, smoothed_, ln_prototypes_, prototypes_);
  if (epsilon_ > 0.015) text += fmt::format(" swav.epsilon = 0.01 to 0.02 (now {});", epsilon_);
  // The batch must be able to fill the prototypes: Sinkhorn spreads its images evenly over all of them.
  text += fmt::format(" fewer prototypes for the batch (head.prototypes = {}, data.global_batch = {})", prototypes_,
                      global_batch_);
  text += queue_length_ > 0 ? fmt::format(" or a longer queue (swav.queue_length = {})", queue_length_)
                            : std::string(" or a queue (swav.queue_length = 0)");
  text += fmt::format("; longer freezing (swav.freeze_prototypes_updates = {}); a lower rate (schedule.lr_peak = {})",
                      freeze_updates_, lr_peak_);
  return text + ". See docs/watching.md.";
}

}  // namespace seer::method
