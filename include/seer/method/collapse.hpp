// SPDX-License-Identifier: Apache-2.0
// Detects collapse, the most common failure of methods without labels: the network gives the same output for all
// images, and the loss stays at the value of such a network (docs/watching.md).
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "seer/config/config.hpp"

namespace seer::method {

/// Watches the smoothed loss. Pure: no clock, no output. Checkpoints do not hold its state: a resumed run
/// starts a new window, which delays the warning by one window at worst.
class CollapseWatch {
 public:
  static constexpr double kTolerance = 0.01;           ///< relative to the collapsed loss
  static constexpr std::int64_t kWindowUpdates = 200;  ///< how long the loss must stay there
  static constexpr double kSmoothingUpdates = 20;      ///< time constant of the exponential mean

  /// `collapsed_loss`: the loss of a collapsed network. No warning in the first `silent_updates` updates. The warning
  /// explains that loss with `meaning` and names the settings to change with `advice`.
  CollapseWatch(double collapsed_loss, std::int64_t silent_updates, std::string meaning, std::string advice)
      : collapsed_loss_(collapsed_loss),
        silent_updates_(silent_updates),
        meaning_(std::move(meaning)),
        advice_(std::move(advice)) {}

  /// Takes the loss after `update` completed updates (ascending, gaps allowed; mean over ranks). Ignores non-finite
  /// losses. Returns one warning when the window is full, and another only after the loss has left and come back.
  std::optional<std::string> observe(std::int64_t update, double loss) {
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
        "collapse: from update {} to {} the smoothed loss ({:.4f}) stayed within 1 % of {}. Unless it falls soon, "
        "start again with:{}. See docs/watching.md.",
        near_since_, update, smoothed_, meaning_, advice_);
  }
  double smoothed_loss() const { return smoothed_; }

 private:
  double collapsed_loss_;
  std::int64_t silent_updates_;
  std::string meaning_, advice_;
  double smoothed_ = 0;
  std::int64_t last_update_ = -1;
  std::int64_t near_since_ = -1;  ///< update at which the loss came near the collapsed loss; -1: not near
  bool warned_ = false;
};

/// For SwAV (methods/swav.cpp). The collapsed loss is ln K for K prototypes. Silent while the prototypes are frozen
/// (swav.freeze_prototypes_updates), because the loss is normally near ln K then.
CollapseWatch swav_collapse(const config::Config& config);

}  // namespace seer::method
