// SPDX-License-Identifier: Apache-2.0
// The RegNetY trunk (method.md 1.2): stem, stages of blocks, mean over the image.
#include <fmt/format.h>

#include <array>

#include "conv_trunk.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/block.hpp"
#include "seer/nn/stem.hpp"
#include "seer/nn/trunk.hpp"

namespace seer::nn {
namespace {

class RegNetY final : public ConvTrunk<Stem, Block> {
 public:
  RegNetY(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers) {
    set_stem(parameters, [&] { return Stem(parameters, buffers, "stem.0", "stem.1", {.width = kStemWidth}); });
    std::int64_t width_in = kStemWidth;
    for (std::size_t s = 0; s < architecture.stages.size(); ++s) {
      const auto& stage = architecture.stages[s];
      for (std::int64_t i = 0; i < stage.depth; ++i) {
        const BlockShape shape{.width_in = width_in,
                               .width = stage.width,
                               .stride = i == 0 ? 2 : 1,
                               .group_width = stage.group_width,
                               .squeeze = squeeze_width(width_in)};
        add_block(parameters, buffers, fmt::format("trunk_output.block{0}.block{0}-{1}", s + 1, i), shape);
        width_in = stage.width;
      }
      end_stage(stage.width);
    }
  }
};

std::unique_ptr<Chain> make(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers) {
  return std::make_unique<RegNetY>(architecture(model), parameters, buffers);
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

struct Stages {
  std::vector<std::int64_t> depths, widths, group_widths;
  bool operator==(const Stages&) const = default;
};

Stages stages_of(const config::Model& model) {
  Stages out;
  for (const auto& stage : architecture(model).stages) {
    out.depths.push_back(stage.depth);
    out.widths.push_back(stage.width);
    out.group_widths.push_back(stage.group_width);
  }
  return out;
}

std::string list(const auto& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

std::vector<std::pair<std::string, std::string>> metadata(const config::Model& model) {
  const auto stages = stages_of(model);
  const auto m = with_numbers(model);
  return {{"depth", fmt::format("{}", m.depth)},
          {"w0", fmt::format("{}", m.w0)},
          {"wa", fmt::format("{}", m.wa)},
          {"wm", fmt::format("{}", m.wm)},
          {"group_width", fmt::format("{}", m.group_width)},
          {"depths", list(stages.depths)},
          {"widths", list(stages.widths)},
          {"group_widths", list(stages.group_widths)},
          {"se_ratio", "0.25"}};
}

// Presets for which torchvision has a function, under its width rule.
constexpr std::array<std::pair<const char*, const char*>, 8> kTorchvision = {{{"400mf", "400mf"},
                                                                              {"800mf", "800mf"},
                                                                              {"1.6gf", "1_6gf"},
                                                                              {"3.2gf", "3_2gf"},
                                                                              {"8gf", "8gf"},
                                                                              {"16gf", "16gf"},
                                                                              {"32gf", "32gf"},
                                                                              {"128gf", "128gf"}}};

std::string python(const config::Model& model) {
  const auto m = with_numbers(model);
  const auto stages = stages_of(m);
  auto by_torchvision = m;
  by_torchvision.width_rule = "torchvision";
  const bool same_widths = stages == stages_of(by_torchvision);
  for (const auto& [preset, name] : kTorchvision) {
    if (same_widths && m.preset == preset) return fmt::format("model = torchvision.models.regnet_y_{}()\n", name);
  }
  const std::string import = "from torchvision.models.regnet import BlockParams, RegNet\n";
  if (same_widths) {
    return import + fmt::format(
                        "model = RegNet(BlockParams.from_init_params(depth={}, w_0={}, w_a={}, w_m={}, "
                        "group_width={}, se_ratio=0.25))\n",
                        m.depth, m.w0, m.wa, m.wm, m.group_width);
  }
  // The widths follow the rule of pycls and SEER, so they must be listed.
  const std::vector<int> twos(stages.depths.size(), 2);
  const std::vector<std::string> ones(stages.depths.size(), "1.0");
  return import + fmt::format(
                      "model = RegNet(BlockParams(depths={}, widths={}, group_widths={},\n"
                      "                           bottleneck_multipliers={}, strides={}, se_ratio=0.25))\n",
                      list(stages.depths), list(stages.widths), list(stages.group_widths), list(ones), list(twos));
}

}  // namespace

namespace trunks {
extern const TrunkKind regnety;
const TrunkKind regnety = {"regnety", make, {"stem", "trunk_output"}, presets, metadata, python};
}  // namespace trunks

}  // namespace seer::nn
