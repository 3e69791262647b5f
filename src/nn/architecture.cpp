// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/architecture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "seer/base/error.hpp"

namespace seer::nn {
namespace {

struct Preset {
  const char* name;
  std::int64_t depth, w0;
  double wa, wm;
  std::int64_t group_width;
};

// method.md 1.5. "256gf" is SEER's network (256GF_1), not ClassyVision's of that name.
constexpr std::array kPresets = {
    Preset{"tiny", 4, 16, 16.0, 2.0, 8},         Preset{"200mf", 13, 24, 36.44, 2.49, 8},
    Preset{"400mf", 16, 48, 27.89, 2.09, 8},     Preset{"600mf", 15, 48, 32.54, 2.32, 16},
    Preset{"800mf", 14, 56, 38.84, 2.4, 16},     Preset{"1.6gf", 27, 48, 20.71, 2.65, 24},
    Preset{"3.2gf", 21, 80, 42.63, 2.66, 24},    Preset{"4.0gf", 22, 96, 31.41, 2.24, 64},
    Preset{"6.4gf", 25, 112, 33.22, 2.27, 72},   Preset{"8gf", 17, 192, 76.82, 2.19, 56},
    Preset{"12gf", 19, 168, 73.36, 2.37, 112},   Preset{"16gf", 18, 200, 106.23, 2.48, 112},
    Preset{"32gf", 20, 232, 115.89, 2.53, 232},  Preset{"64gf", 20, 352, 147.48, 2.4, 328},
    Preset{"128gf", 27, 456, 160.83, 2.52, 264}, Preset{"256gf", 27, 640, 230.83, 2.53, 373},
    Preset{"10b", 27, 1744, 620.83, 2.52, 1010},
};

constexpr std::int64_t kDeepest = 1000, kLargest = 100000;  // above any RegNet; stops absurd settings

// std::nearbyint rounds half to even in the default rounding mode, as the papers' code does.
std::int64_t round_even(double x) {
  return static_cast<std::int64_t>(std::nearbyint(x));
}

// torchvision's rule: rounds to the nearest multiple (half up), but never below 0.9 of the width.
std::int64_t make_divisible(std::int64_t width, std::int64_t divisor) {
  std::int64_t rounded = std::max(divisor, (width + divisor / 2) / divisor * divisor);
  if (static_cast<double>(rounded) < 0.9 * static_cast<double>(width)) rounded += divisor;
  return rounded;
}

}  // namespace

std::int64_t squeeze_width(std::int64_t input_width) {
  return round_even(0.25 * static_cast<double>(input_width));
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const auto& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

config::Model with_numbers(config::Model model) {
  if (model.preset.empty()) return model;
  const std::string wanted = model.preset == "4gf" ? "4.0gf" : model.preset;
  const auto found = std::find_if(kPresets.begin(), kPresets.end(), [&](const Preset& x) { return wanted == x.name; });
  if (found == kPresets.end()) {
    throw Error(ExitCode::input, fmt::format("model.preset \"{}\" is not known", model.preset),
                fmt::format("known presets: {}", fmt::join(preset_names(), " ")))
        .as_agreed();
  }
  model.depth = found->depth;
  model.w0 = found->w0;
  model.wa = found->wa;
  model.wm = found->wm;
  model.group_width = found->group_width;
  return model;
}

Architecture architecture(const config::Model& model) {
  const auto p = with_numbers(model);
  const bool widths = p.w0 >= 8 && p.w0 <= kLargest && p.w0 % 8 == 0 && p.wa >= 0 && p.wa <= kLargest && p.wm > 1 &&
                      p.wm <= kLargest && p.group_width >= 1 && p.group_width <= kLargest;  // false for NaN
  if (p.depth < 1 || p.depth > kDeepest || !widths) {
    throw Error(ExitCode::input,
                fmt::format("model: depth {}, w0 {}, wa {}, wm {}, group_width {} make no valid RegNet", p.depth, p.w0,
                            p.wa, p.wm, p.group_width),
                "wanted: depth 1 to 1000, w0 a positive multiple of 8, wa >= 0, wm > 1, group_width >= 1")
        .as_agreed();
  }
  Architecture out;
  const double w0 = static_cast<double>(p.w0);
  for (std::int64_t j = 0; j < p.depth; ++j) {
    const double u = w0 + p.wa * static_cast<double>(j);
    const double k = std::nearbyint(std::log(u / w0) / std::log(p.wm));
    const std::int64_t width = 8 * round_even(w0 * std::pow(p.wm, k) / 8);
    if (out.stages.empty() || out.stages.back().width != width) out.stages.push_back({width, 0, 0});
    ++out.stages.back().depth;
  }
  for (auto& stage : out.stages) {
    stage.group_width = std::min(p.group_width, stage.width);
    stage.width =
        model.width_rule == "torchvision"
            ? make_divisible(stage.width, stage.group_width)
            : round_even(static_cast<double>(stage.width) / static_cast<double>(stage.group_width)) * stage.group_width;
  }
  return out;
}

}  // namespace seer::nn
