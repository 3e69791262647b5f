// SPDX-License-Identifier: Apache-2.0
// The RegNetY trunk (method.md 1.1, 1.2): stem, stages of blocks, mean over the image.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "conv_trunk.hpp"
#include "seer/base/error.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/trunk.hpp"

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
  const auto found = std::ranges::find(kPresets, wanted, &Preset::name);
  if (found == kPresets.end()) throw config::unknown("model.preset", model.preset, preset_names());
  model.depth = found->depth;
  model.w0 = found->w0;
  model.wa = found->wa;
  model.wm = found->wm;
  model.group_width = found->group_width;
  return model;
}

std::vector<Stage> architecture(const config::Model& model) {
  const auto p = with_numbers(model);
  const bool widths = p.w0 >= 8 && p.w0 <= kLargest && p.w0 % 8 == 0 && p.wa >= 0 && p.wa <= kLargest && p.wm > 1 &&
                      p.wm <= kLargest && p.group_width >= 1 && p.group_width <= kLargest;  // false for NaN
  if (p.depth < 1 || p.depth > kDeepest || !widths) {
    throw Error(ExitCode::input,
                fmt::format("model: depth {}, w0 {}, wa {}, wm {}, group_width {} describe no valid RegNet", p.depth,
                            p.w0, p.wa, p.wm, p.group_width),
                "wanted: depth 1 to 1000, w0 a positive multiple of 8, wa >= 0, wm > 1, group_width >= 1")
        .as_agreed();
  }
  std::vector<Stage> stages;
  const double w0 = static_cast<double>(p.w0);
  for (std::int64_t j = 0; j < p.depth; ++j) {
    const double u = w0 + p.wa * static_cast<double>(j);
    const double k = std::nearbyint(std::log(u / w0) / std::log(p.wm));
    const std::int64_t width = 8 * round_even(w0 * std::pow(p.wm, k) / 8);
    if (stages.empty() || stages.back().width != width) stages.push_back({width, 0, 0});
    ++stages.back().depth;
  }
  for (auto& stage : stages) {
    stage.group_width = std::min(p.group_width, stage.width);
    stage.width =
        model.width_rule == "torchvision"
            ? make_divisible(stage.width, stage.group_width)
            : round_even(static_cast<double>(stage.width) / static_cast<double>(stage.group_width)) * stage.group_width;
  }
  return stages;
}

namespace {

std::unique_ptr<Chain> make(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers) {
  auto trunk = std::make_unique<ConvTrunk>(parameters);
  std::int64_t width_in = kStemWidth;
  trunk->set_stem(
      parameters,
      {{parameters, buffers, "stem.0", "stem.1", {.c_in = 3, .c_out = width_in, .kernel = 3, .stride = 2}}, false});
  std::int64_t number = 0;
  for (const auto& stage : architecture(model)) {
    ++number;
    for (std::int64_t i = 0; i < stage.depth; ++i) {
      const Block::Shape shape{.width_in = width_in,
                               .width = stage.width,
                               .stride = i == 0 ? 2 : 1,
                               .inner_width = stage.width,
                               .groups = stage.width / stage.group_width,
                               .squeezed = squeeze_width(width_in)};
      trunk->add_block(parameters,
                       {parameters, buffers, fmt::format("trunk_output.block{0}.block{0}-{1}", number, i), shape});
      width_in = stage.width;
    }
    trunk->end_stage(stage.width);
  }
  return trunk;
}

std::vector<config::Model> presets() {
  std::vector<config::Model> out;
  for (const char* rule : {"pycls", "torchvision"}) {
    for (const auto& preset : preset_names()) {
      out.emplace_back();
      out.back().preset = preset;
      out.back().width_rule = rule;
    }
  }
  return out;
}

std::string list(const std::vector<Stage>& stages, std::int64_t Stage::*number) {
  std::vector<std::int64_t> numbers;
  for (const auto& stage : stages) numbers.push_back(stage.*number);
  return fmt::format("[{}]", fmt::join(numbers, ", "));
}

std::vector<std::pair<std::string, std::string>> metadata(const config::Model& model) {
  const auto built = architecture(model);
  const auto m = with_numbers(model);
  return {{"depth", fmt::format("{}", m.depth)},
          {"w0", fmt::format("{}", m.w0)},
          {"wa", fmt::format("{}", m.wa)},
          {"wm", fmt::format("{}", m.wm)},
          {"group_width", fmt::format("{}", m.group_width)},
          {"depths", list(built, &Stage::depth)},
          {"widths", list(built, &Stage::width)},
          {"group_widths", list(built, &Stage::group_width)},
          {"se_ratio", "0.25"}};
}

// Presets for which torchvision has a function, under its width rule: "regnet_y_1_6gf".
constexpr const char* kTorchvision[] = {"400mf", "800mf", "1.6gf", "3.2gf", "8gf", "16gf", "32gf", "128gf"};

std::string python(const config::Model& model) {
  const auto m = with_numbers(model);
  const auto built = architecture(m);
  auto by_torchvision = m;
  by_torchvision.width_rule = "torchvision";
  const bool same_widths = built == architecture(by_torchvision);
  if (same_widths && std::ranges::find(kTorchvision, m.preset) != std::end(kTorchvision)) {
    auto name = m.preset;
    std::ranges::replace(name, '.', '_');
    return fmt::format("model = torchvision.models.regnet_y_{}()\n", name);
  }
  const std::string import = "from torchvision.models.regnet import BlockParams, RegNet\n";
  if (same_widths) {
    return import + fmt::format(
                        "model = RegNet(BlockParams.from_init_params(depth={}, w_0={}, w_a={}, w_m={}, "
                        "group_width={}, se_ratio=0.25))\n",
                        m.depth, m.w0, m.wa, m.wm, m.group_width);
  }
  // The widths follow the rule of pycls and SEER, so they must be listed.
  const std::vector<int> twos(built.size(), 2);
  const std::vector<std::string> ones(built.size(), "1.0");
  return import + fmt::format(
                      "model = RegNet(BlockParams(depths={}, widths={}, group_widths={},\n"
                      "                           bottleneck_multipliers=[{}], strides=[{}], se_ratio=0.25))\n",
                      list(built, &Stage::depth), list(built, &Stage::width), list(built, &Stage::group_width),
                      fmt::join(ones, ", "), fmt::join(twos, ", "));
}

}  // namespace

namespace trunks {
extern const TrunkKind regnety;
const TrunkKind regnety = {"regnety", make, {"stem", "trunk_output"}, presets, metadata, python};
}  // namespace trunks

}  // namespace seer::nn
