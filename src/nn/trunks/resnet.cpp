// SPDX-License-Identifier: Apache-2.0
// ResNet and ResNeXt (method.md 1.6), with torchvision's names: stem, four stages of blocks, mean over the image.
#include <fmt/format.h>

#include <array>

#include "conv_trunk.hpp"
#include "seer/nn/trunk.hpp"

namespace seer::nn {
namespace {

struct Preset {
  const char* name;
  std::array<std::int64_t, 4> depths;
  std::int64_t groups, width_per_group;  ///< of the first stage's 3x3 convolution; 0: blocks of two convolutions
};
constexpr std::array kPresets = {
    Preset{"18", {2, 2, 2, 2}, 1, 0},           Preset{"34", {3, 4, 6, 3}, 1, 0},
    Preset{"50", {3, 4, 6, 3}, 1, 64},          Preset{"101", {3, 4, 23, 3}, 1, 64},
    Preset{"152", {3, 8, 36, 3}, 1, 64},        Preset{"x50_32x4d", {3, 4, 6, 3}, 32, 4},
    Preset{"x101_32x8d", {3, 4, 23, 3}, 32, 8}, Preset{"x101_32x16d", {3, 4, 23, 3}, 32, 16},
    Preset{"x101_64x4d", {3, 4, 23, 3}, 64, 4},
};

const Preset& preset_of(const config::Model& model) {
  std::vector<std::string> names;
  for (const auto& preset : kPresets) {
    if (model.preset == preset.name) return preset;
    names.emplace_back(preset.name);
  }
  throw config::unknown("model.preset", model.preset, names);
}

std::unique_ptr<Chain> make(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers) {
  const auto& preset = preset_of(model);
  const bool small = model.stem == "small";
  if (!small && model.stem != "standard") throw config::unknown("model.stem", model.stem, {"standard", "small"});
  auto trunk = std::make_unique<ConvTrunk>(parameters);
  std::int64_t width_in = 64;
  trunk->set_stem(parameters, {{parameters,
                                buffers,
                                "conv1",
                                "bn1",
                                {.c_in = 3, .c_out = width_in, .kernel = small ? 3 : 7, .stride = small ? 1 : 2}},
                               !small});
  for (std::size_t stage = 0; stage < preset.depths.size(); ++stage) {
    const std::int64_t planes = std::int64_t{64} << stage;
    const bool bottleneck = preset.width_per_group > 0;
    const std::int64_t width = bottleneck ? 4 * planes : planes;
    for (std::int64_t i = 0; i < preset.depths[stage]; ++i) {
      const Block::Shape shape{.width_in = width_in,
                               .width = width,
                               .stride = stage > 0 && i == 0 ? 2 : 1,
                               .inner_width = bottleneck ? planes * preset.width_per_group / 64 * preset.groups : 0,
                               .groups = preset.groups};
      trunk->add_block(parameters, {parameters, buffers, fmt::format("layer{}.{}", stage + 1, i), shape});
      width_in = width;
    }
    trunk->end_stage(width);
  }
  return trunk;
}

std::vector<config::Model> presets() {
  std::vector<config::Model> out;
  for (const char* stem : {"standard", "small"}) {
    for (const auto& preset : kPresets) {
      out.emplace_back();
      out.back().preset = preset.name;
      out.back().stem = stem;
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> metadata(const config::Model& model) {
  const auto& preset = preset_of(model);
  return {{"depths", fmt::format("[{}]", fmt::join(preset.depths, ", "))},
          {"groups", std::to_string(preset.groups)},
          {"width_per_group", std::to_string(preset.width_per_group)}};
}

std::string python(const config::Model& model) {
  const auto& preset = preset_of(model);
  std::string out;
  if (std::string(preset.name) == "x101_32x16d") {  // torchvision has no function for it
    out = fmt::format(
        "from torchvision.models.resnet import Bottleneck, ResNet\n"
        "model = ResNet(Bottleneck, [{}], groups={}, width_per_group={})\n",
        fmt::join(preset.depths, ", "), preset.groups, preset.width_per_group);
  } else {
    const bool next = model.preset.starts_with("x");
    out = fmt::format("model = torchvision.models.{}{}()\n", next ? "resnext" : "resnet",
                      model.preset.substr(next ? 1 : 0));
  }
  if (model.stem == "small") {
    out +=
        "model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)\n"
        "model.maxpool = torch.nn.Identity()\n";
  }
  return out;
}

}  // namespace

namespace trunks {
extern const TrunkKind resnet;
const TrunkKind resnet = {"resnet", make,     {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"},
                          presets,  metadata, python};
}  // namespace trunks

}  // namespace seer::nn
