// SPDX-License-Identifier: Apache-2.0
// The commonest disaster of methods without labels: the loss goes to the value that equal outputs for all images give,
// and stays there (docs/watching.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "seer/config/config.hpp"

namespace seer::method {

/// Watches the smoothed loss. Pure: no clock, no output. Its state is in no checkpoint: a resumed run starts the window
/// anew, which at worst delays the warning by one window.
class CollapseWatch {
 public:
  static constexpr double kTolerance = 0.01;           ///< of the collapsed loss
  static constexpr std::int64_t kWindowUpdates = 200;  ///< the loss must have stayed there for as many
  static constexpr double kSmoothingUpdates = 20;      ///< time constant of the exponential mean

  /// The loss of a collapsed network. The watch is silent in the first `silent_updates`. `meaning` says what that loss
  /// is, `advice` which settings to change.
  CollapseWatch(double collapsed_loss, std::int64_t silent_updates, std::string meaning, std::string advice)
      : collapsed_loss_(collapsed_loss),
        silent_updates_(silent_updates),
        meaning_(std::move(meaning)),
        advice_(std::move(advice)) {}

  /// Loss of one update (completed updates, ascending, gaps allowed; the mean over ranks). Non-finite losses are left
  /// out. Returns a warning when the window is full; once, and again only after the loss has left and come back.
  std::optional<std::string> observe(std::int64_t update, double loss);
  double smoothed_loss() const { return smoothed_; }

 private:
  double collapsed_loss_;
  std::int64_t silent_updates_;
  std::string meaning_, advice_;
  double smoothed_ = 0;
  std::int64_t last_update_ = -1;
  std::int64_t near_since_ = -1;  ///< first update of the present stay near the collapsed loss, -1: not there
  bool warned_ = false;
};

/// SwAV's: ln K for K prototypes. Silent until the prototypes are free (swav.freeze_prototypes_updates): before that
/// the loss is near ln K by nature.
CollapseWatch swav_collapse(const config::Config& config);

}  // namespace seer::method
