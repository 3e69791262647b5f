// SPDX-License-Identifier: Apache-2.0
// RegNetY's stages from (depth, w0, wa, wm, group width): method.md 1.1 and the presets of 1.5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::nn {

constexpr std::int64_t kStemWidth = 32;

/// One stage of equal blocks; the first block has stride 2.
struct Stage {
  std::int64_t width = 0, depth = 0, group_width = 0;
  bool operator==(const Stage&) const = default;
};

/// Squeeze-excitation width: a quarter of the block's INPUT width, rounded half to even (method.md 1.2).
std::int64_t squeeze_width(std::int64_t input_width);

/// Fills in the five numbers of the model's preset, if it has one. Error(input) for an unknown preset.
config::Model with_numbers(config::Model model);

/// The stages; the width of the last one is the number of features. Error(input) for an unknown preset or numbers
/// outside the preconditions of method.md 1.1.
std::vector<Stage> architecture(const config::Model& model);

/// Lower-case names of all presets, smallest first.
std::vector<std::string> preset_names();

}  // namespace seer::nn
