// SPDX-License-Identifier: Apache-2.0
// mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch, as timm's "batch" mode does them (method.md 4.5).
#pragma once

#include <cstdint>

#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/queue.hpp"
#include "seer/kernels/mix.hpp"

namespace seer::method {

/// What one update does with its images. The same on all ranks.
struct MixChoice {
  double lambda = 1;      ///< share of an image that stays its own; 1: the update mixes nothing
  bool cut = false;       ///< CutMix: partners exchange this rectangle, and lambda is 1 - its share of the area
  kernels::Box box = {};  ///< pixels of the crop
};

/// Mixes each image with its neighbour in the batch: 0 with 1, 2 with 3, and so on. If a rank has an odd number of
/// images, its last one stays as it is. So the result does not depend on the number of ranks while each has an even
/// number of images.
class Mix {
 public:
  /// `images`: per batch on this rank. Error(input), agreed, for CutMix with crops of several sizes.
  Mix(const config::Config& config, std::int64_t images);

  /// Whether the configuration asks for it.
  bool on() const { return mixup_ > 0 || cutmix_ > 0; }
  /// The choice for update `update` (from 0). Draws from (data.seed, update) alone.
  MixChoice choose(std::int64_t update) const;
  /// Changes the pixels of all crops of the batch in place, in its memory. Call it once for each batch, before the
  /// forward pass. `queue` is where the crops are. Does not wait for it.
  void apply(device::Queue& queue, const data::Batch& batch, std::int64_t update);
  /// Of the last apply(). The target of image i is lambda() * target(i) + (1 - lambda()) * target(partner(i)).
  double lambda() const { return lambda_; }
  /// Number of the image that image i of this rank is mixed with; i itself if it has none.
  std::int64_t partner(std::int64_t i) const { return (i ^ 1) < images_ ? i ^ 1 : i; }

 private:
  double mixup_, cutmix_, probability_, switch_;
  std::uint64_t seed_;
  std::int64_t images_, size_;  ///< size: of the crops, in pixels
  double lambda_ = 1;
};

}  // namespace seer::method
