// SPDX-License-Identifier: Apache-2.0
// Weights for PyTorch, and the lines that load them there.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "seer/checkpoint/exchange.hpp"
#include "seer/checkpoint/safetensors.hpp"
#include "seer/nn/architecture.hpp"

namespace seer::checkpoint {
namespace {

// Networks that torchvision has by name, with its own width rule.
constexpr std::array<std::pair<const char*, const char*>, 8> kTorchvision = {{{"400mf", "400mf"},
                                                                              {"800mf", "800mf"},
                                                                              {"1.6gf", "1_6gf"},
                                                                              {"3.2gf", "3_2gf"},
                                                                              {"8gf", "8gf"},
                                                                              {"16gf", "16gf"},
                                                                              {"32gf", "32gf"},
                                                                              {"128gf", "128gf"}}};

struct Stages {
  std::vector<std::int64_t> depths, widths, group_widths;
  bool operator==(const Stages&) const = default;
};

Stages stages_of(const config::Model& model) {
  Stages out;
  for (const auto& stage : nn::architecture(model).stages) {
    out.depths.push_back(stage.depth);
    out.widths.push_back(stage.width);
    out.group_widths.push_back(stage.group_width);
  }
  return out;
}

std::string list(const auto& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

std::map<std::string, std::string> metadata_of(const Weights& w) {
  const auto m = nn::with_numbers(w.model);
  const auto stages = stages_of(w.model);
  // "pt": what PyTorch's own writer says; some readers ask for it.
  std::map<std::string, std::string> out = {{"format", "pt"},
                                            {"producer", "seer"},
                                            {"architecture", "regnety"},
                                            {"preset", m.preset},
                                            {"width_rule", m.width_rule},
                                            {"depth", fmt::format("{}", m.depth)},
                                            {"w0", fmt::format("{}", m.w0)},
                                            {"wa", fmt::format("{}", m.wa)},
                                            {"wm", fmt::format("{}", m.wm)},
                                            {"group_width", fmt::format("{}", m.group_width)},
                                            {"depths", list(stages.depths)},
                                            {"widths", list(stages.widths)},
                                            {"group_widths", list(stages.group_widths)},
                                            {"se_ratio", "0.25"},
                                            {"head_dims", list(w.head.dims)},
                                            {"head_batchnorm", w.head.batchnorm ? "true" : "false"},
                                            {"prototypes", fmt::format("{}", w.head.prototypes)}};
  out.insert(w.about.begin(), w.about.end());
  return out;
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void export_safetensors(const std::string& path, const Weights& weights, Naming naming) {
  const bool full_model = !weights.head.dims.empty();
  const int stride = weights.head.batchnorm ? 3 : 2;
  std::map<std::string, SafetensorsItem> items;
  for (const auto* group : {&weights.parameters, &weights.buffers}) {
    for (const auto& [name, tensor] : *group) {
      items[foreign_name(name, naming, stride, full_model)] = {tensor.shape, tensor.values.data(), 0};
      constexpr std::string_view kVariance = ".running_var";
      if (name.ends_with(kVariance)) {
        const auto counter = name.substr(0, name.size() - kVariance.size()) + ".num_batches_tracked";
        items[foreign_name(counter, naming, stride, full_model)] = {};
      }
    }
  }
  if (naming != Naming::vissl) {
    for (const auto& [name, tensor] : weights.classifier) items[name] = {tensor.shape, tensor.values.data(), 0};
  }
  write_safetensors(path, items, metadata_of(weights));
}

std::string python_lines(const std::string& path, const Weights& weights) {
  const auto m = nn::with_numbers(weights.model);
  const auto stages = stages_of(m);
  auto by_torchvision = m;
  by_torchvision.width_rule = "torchvision";
  const bool same_widths = stages == stages_of(by_torchvision);
  const auto named =
      std::find_if(kTorchvision.begin(), kTorchvision.end(), [&](const auto& n) { return m.preset == n.first; });
  std::string out = "import safetensors.torch, torch, torchvision\n";
  if (same_widths && named != kTorchvision.end()) {
    out += fmt::format("model = torchvision.models.regnet_y_{}()\n", named->second);
  } else {
    out += "from torchvision.models.regnet import BlockParams, RegNet\n";
    if (same_widths) {
      out += fmt::format(
          "model = RegNet(BlockParams.from_init_params(depth={}, w_0={}, w_a={}, w_m={}, group_width={}, "
          "se_ratio=0.25))\n",
          m.depth, m.w0, m.wa, m.wm, m.group_width);
    } else {  // widths by the rule of pycls and SEER
      const std::vector<int> twos(stages.depths.size(), 2);
      const std::vector<std::string> ones(stages.depths.size(), "1.0");
      out += fmt::format(
          "model = RegNet(BlockParams(depths={}, widths={}, group_widths={},\n"
          "                           bottleneck_multipliers={}, strides={}, se_ratio=0.25))\n",
          list(stages.depths), list(stages.widths), list(stages.group_widths), list(ones), list(twos));
    }
  }
  const auto classes = weights.classifier.find("fc.weight");
  if (classes == weights.classifier.end()) {
    out += "model.fc = torch.nn.Identity()\n";
  } else {
    out +=
        fmt::format("model.fc = torch.nn.Linear({}, {})\n", classes->second.shape.at(1), classes->second.shape.at(0));
  }
  out += fmt::format("weights = safetensors.torch.load_file({})\n", quoted(path));
  out +=
      "model.load_state_dict({k: v for k, v in weights.items() if not k.startswith((\"head.\", \"prototypes.\"))})\n"
      "model.eval()";
  if (const auto& about = weights.about; about.contains("mean") && about.contains("std")) {
    out += fmt::format("  # takes RGB in [0, 1], normalised with mean {}, std {}", about.at("mean"), about.at("std"));
  }
  return out + "\n";
}

}  // namespace seer::checkpoint
