// SPDX-License-Identifier: Apache-2.0
// The vectors that are computed of an image: which outputs of the network, and how each is pooled (method.md 8.1). As
// text, for options and features files:
//   trunk      the pooled features (the trunk's output), also called "pooled"
//   head       the projection head's embedding of length one
//   TAP        an output of the trunk (stem, res2, ... res5), averaged over the image
//   TAP:HxW    averaged over a grid of H x W cells (adaptive average pooling): H * W * channels values
//   TAP:gemP   generalised mean with exponent P: (mean of max(x, 1e-6)^P)^(1/P)
//   TAP:rmacL  R-MAC over L scales: sum of the regions' maxima, each of length one (Tolias et al. 2016)
//   TAP:map    the map itself, [h, w, channels]
//   A+B        both, one after the other
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::eval {

enum class Pool : std::uint8_t { average, gem, rmac, map };

/// One output of the network, pooled.
struct FeaturePart {
  std::string tap;  ///< "trunk", "head" or a tap's name
  Pool pool = Pool::average;
  std::int64_t height = 1, width = 1;  ///< average: cells of the grid
  double power = 3;                    ///< gem
  std::int64_t levels = 3;             ///< rmac: number of scales
  bool operator==(const FeaturePart&) const = default;
};

struct Feature {
  std::string text;  ///< in its shortest form: equal for equal features
  std::vector<FeaturePart> parts;
  bool is_map() const { return parts.size() == 1 && parts.front().pool == Pool::map; }
  bool uses(const std::string& tap) const;
  bool operator==(const Feature&) const = default;
};

/// Reads the text above; "res5:gem" is gem3 and "res5:rmac" rmac3. Error(input), agreed, shows the text and the forms.
Feature parse_feature(const std::string& text);
/// A list separated by commas. Error(input), agreed: none, the same twice, or more than one map.
std::vector<Feature> parse_features(const std::string& texts);

}  // namespace seer::eval
