// SPDX-License-Identifier: Apache-2.0
#include "seer/method/collapse.hpp"

#include <fmt/format.h>

#include <cmath>

namespace seer::method {

std::optional<std::string> CollapseWatch::observe(std::int64_t update, double loss) {
  if (!std::isfinite(loss)) return std::nullopt;
  if (last_update_ < 0) {
    smoothed_ = loss;
  } else {
    const double keep = std::exp(-static_cast<double>(update - last_update_) / kSmoothingUpdates);
    smoothed_ = keep * smoothed_ + (1 - keep) * loss;
  }
  last_update_ = update;
  if (update <= silent_updates_ || std::abs(smoothed_ - collapsed_loss_) > kTolerance * collapsed_loss_) {
    near_since_ = -1;
    warned_ = false;
    return std::nullopt;
  }
  if (near_since_ < 0) near_since_ = update;
  if (warned_ || update - near_since_ < kWindowUpdates) return std::nullopt;
  warned_ = true;
  return fmt::format(
      "collapse: from update {} to {} the smoothed loss ({:.4f}) stayed within 1 % of {}. Unless it falls soon, start "
      "again with:{}. See docs/watching.md.",
      near_since_, update, smoothed_, meaning_, advice_);
}

CollapseWatch swav_collapse(const config::Config& config) {
  const auto prototypes = config.head.prototypes;
  const double ln_prototypes = std::log(static_cast<double>(prototypes));
  const auto& swav = config.swav;
  std::string advice;
  if (swav.epsilon > 0.015) advice += fmt::format(" swav.epsilon = 0.01 to 0.02 (now {});", swav.epsilon);
  // The batch needs enough images for the prototypes, because Sinkhorn spreads them evenly over all prototypes.
  advice += fmt::format(" fewer prototypes for the batch (head.prototypes = {}, data.global_batch = {})", prototypes,
                        config.data.global_batch);
  advice += swav.queue_length > 0 ? fmt::format(" or a longer queue (swav.queue_length = {})", swav.queue_length)
                                  : std::string(" or a queue (swav.queue_length = 0)");
  advice += fmt::format("; longer freezing (swav.freeze_prototypes_updates = {}); a lower rate (schedule.lr_peak = {})",
                        swav.freeze_prototypes_updates, config.schedule.lr_peak);
  return {
      ln_prototypes, swav.freeze_prototypes_updates,
      fmt::format("ln K = {:.4f} (K = {} prototypes), which is what a network gives that predicts the same for every "
                  "image",
                  ln_prototypes, prototypes),
      advice};
}

}  // namespace seer::method
