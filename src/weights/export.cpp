// SPDX-License-Identifier: Apache-2.0
// Exports weights for PyTorch, and makes the Python lines that load them.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "seer/nn/trunk.hpp"
#include "seer/weights/exchange.hpp"
#include "seer/weights/safetensors.hpp"

namespace seer::weights {
namespace {

std::map<std::string, std::string> metadata_of(const Weights& w) {
  // "pt" is what PyTorch's own writer stores; some readers require it.
  std::map<std::string, std::string> out = {{"format", "pt"}, {"producer", "seer"}, {"architecture", w.model.trunk}};
  config::visit_architecture(w.model, w.head, [&]<class Value>(const char* name, const Value& value) {
    if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>) {
      out[name] = fmt::format("[{}]", fmt::join(value, ", "));
    } else {
      out[name] = fmt::format("{}", value);
    }
  });
  for (const auto& [name, value] : nn::trunk_kind(w.model).metadata(w.model)) out[name] = value;
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
  auto out = "import safetensors.torch, torch, torchvision\n" + nn::trunk_kind(weights.model).python(weights.model);
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

}  // namespace seer::weights
