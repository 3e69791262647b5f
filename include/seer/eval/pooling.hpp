// SPDX-License-Identifier: Apache-2.0
// Pools a map of features into a vector (method.md 8.1), on the host. Sums are double.
#pragma once

#include <cstdint>
#include <vector>

#include "seer/device/tensor.hpp"
#include "seer/eval/feature.hpp"

namespace seer::eval {

/// A square of a map.
struct Region {
  std::int64_t top = 0, left = 0, side = 0;
  bool operator==(const Region&) const = default;
};
/// R-MAC's regions (Tolias et al. 2016, section 3.2, as in the authors' code): at scale l squares of side
/// floor(2 min(h, w) / (l + 1)), l along the shorter side, and along the longer one as many more as bring the overlap
/// of neighbours nearest to 40 % of a square. Squares without a pixel are left out.
std::vector<Region> rmac_regions(std::int64_t height, std::int64_t width, std::int64_t levels);

/// Number of values that the part makes of a map of this shape.
std::int64_t pooled_width(const FeaturePart& part, const device::Shape& map);
/// map: [n, h, w, c] float on the host. Image i's pooled_width() values go to out + i * stride; those of a grid in the
/// order [height, width, c].
void pool(const FeaturePart& part, const device::Tensor& map, float* out, std::int64_t stride);

}  // namespace seer::eval
