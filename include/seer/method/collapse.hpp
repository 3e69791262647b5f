// SPDX-License-Identifier: Apache-2.0
// SwAV's commonest disaster: the loss goes to ln K (K prototypes) and stays, because every image gets the same
// prediction. See docs/watching.md.
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
  static constexpr double kTolerance = 0.01;           ///< of ln K
  static constexpr std::int64_t kWindowUpdates = 200;  ///< the loss must have stayed there for as many
  static constexpr double kSmoothingUpdates = 20;      ///< time constant of the exponential mean

  /// Silent until the prototypes are free (swav.freeze_prototypes_updates): before that the loss is near ln K by
  /// nature.
  explicit CollapseWatch(const config::Config& config);

  /// Loss of one update (completed updates, ascending, gaps allowed; the mean over ranks). Non-finite losses are left
  /// out. Returns a warning that names the settings to change when the window is full; once, and again only after the
  /// loss has left and come back.
  std::optional<std::string> observe(std::int64_t update, double loss);

  double smoothed_loss() const { return smoothed_; }

 private:
  std::string warning(std::int64_t update) const;

  double ln_prototypes_;
  std::int64_t prototypes_, global_batch_, queue_length_, freeze_updates_;
  double epsilon_, lr_peak_;
  double smoothed_ = 0;
  std::int64_t last_update_ = -1;
  std::int64_t near_since_ = -1;  ///< first update of the present stay near ln K, -1: not there
  bool warned_ = false;
};

}  // namespace seer::method
