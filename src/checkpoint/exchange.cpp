// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/exchange.hpp"

#include <fmt/format.h>

#include <map>

#include "seer/base/error.hpp"
#include "seer/checkpoint/safetensors.hpp"

namespace seer::checkpoint {
namespace {

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

// Head and prototypes from the tensors there are; dims stay empty where there is no head.
void infer_head(const Shapes& shapes, const std::string& path, config::Head& head) {
  head.dims.clear();
  head.batchnorm = false;
  head.prototypes = 0;
  for (int i = 0;; ++i) {
    const auto layer = shapes.find(fmt::format("head.{}.weight", i));
    if (layer == shapes.end()) break;
    const auto& shape = layer->second;
    if (shape.size() != 2 || (i > 0 && shape[1] != head.dims.back())) {
      throw Error(ExitCode::file,
                  fmt::format("{}: {} has shape [{}], wanted [any, {}]", path, layer->first, fmt::join(shape, ", "),
                              i > 0 ? std::to_string(head.dims.back()) : "any"));
    }
    if (i == 0) head.dims.push_back(shape[1]);
    head.dims.push_back(shape[0]);
    head.batchnorm = head.batchnorm || shapes.contains(fmt::format("head.{}.norm.weight", i));
  }
  const auto prototypes = shapes.find("prototypes.weight");
  if (prototypes != shapes.end() && !head.dims.empty() && prototypes->second.size() == 2) {
    head.prototypes = prototypes->second[0];
  }
}

bool belongs(const std::string& name) {
  return name.starts_with("stem.") || name.starts_with("trunk_output.") || name.starts_with("head.") ||
         name == "prototypes.weight";
}

bool is_buffer(const std::string& name) {
  return name.ends_with(".running_mean") || name.ends_with(".running_var");
}

}  // namespace

Import import_safetensors(const std::string& path, const config::Model& model, Naming naming) {
  const SafetensorsFile file(path);
  const int stride = projection_head_stride(file.names());
  Import out;
  Shapes shapes;
  std::map<std::string, std::string> sources;  // ours -> the file's
  for (const auto& [foreign, entry] : file.entries()) {
    const auto ours = our_name(foreign, naming, stride);
    if (ours.ends_with("num_batches_tracked")) continue;
    const bool classifier = ours == "fc.weight" || ours == "fc.bias";
    if (!belongs(ours) && !classifier) {
      out.ignored.push_back(foreign);
      continue;
    }
    if (const auto [at, fresh] = sources.emplace(ours, foreign); !fresh) {
      throw Error(ExitCode::file, fmt::format("{}: {} and {} are both {}", path, at->second, foreign, ours));
    }
    if (!classifier) shapes[ours] = entry.shape;
  }
  auto& weights = out.weights;
  weights.model = model;
  weights.model.init_from.clear();
  infer_head(shapes, path, weights.head);
  if (const auto problem = compare_with_architecture(shapes, weights.model, weights.head); !problem.empty()) {
    std::string remedy = "give the --preset (or the five numbers) this file was trained with";
    if (model.width_rule == "pycls") remedy += "; torchvision's own 800mf, 4.0gf and 8gf need --width-rule torchvision";
    if (!out.ignored.empty()) remedy += fmt::format("; not understood in this file: {}", out.ignored.front());
    throw Error(ExitCode::file,
                fmt::format("{} does not fit {}: {}", path,
                            model.preset.empty() ? "the architecture given" : "preset " + model.preset, problem),
                remedy);
  }
  for (const auto& [ours, foreign] : sources) {
    auto& group = ours.starts_with("fc.") ? weights.classifier : is_buffer(ours) ? weights.buffers : weights.parameters;
    group.emplace(ours, file.read(foreign));
  }
  return out;
}

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
  write_safetensors(path, items, {{"format", "pt"}});  // "pt": what PyTorch's own writer says, some readers ask for it
}

}  // namespace seer::checkpoint
