// SPDX-License-Identifier: Apache-2.0
// Weights from PyTorch.
#include "seer/checkpoint/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "container.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/safetensors.hpp"
#include "seer/config/nearest.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/model.hpp"

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

/// A file's tensors by our names.
struct Renamed {
  Shapes shapes;                               // without the classifier
  std::map<std::string, std::string> sources;  // ours -> the file's
  std::vector<std::string> ignored;
  std::map<std::string, std::int64_t> prefixes;
};

Renamed rename(const SafetensorsFile& file, const std::string& path, Naming naming, const std::string& prefix) {
  std::map<std::string, std::string> inside;  // name without --prefix -> the file's
  for (const auto& name : file.names()) {
    if (name.starts_with(prefix)) inside.emplace(name.substr(prefix.size()), name);
  }
  if (inside.empty()) {
    throw Error(ExitCode::input, fmt::format("--prefix {}: no tensor of {} begins so", prefix, path),
                file.entries().empty() ? "" : fmt::format("its first one is {}", file.entries().begin()->first));
  }
  std::vector<std::string> names;
  for (const auto& [name, whole] : inside) names.push_back(name);
  const int stride = projection_head_stride(names);
  Renamed out;
  for (const auto& [foreign, whole] : inside) {
    const auto ours = our_name(foreign, naming, stride);
    if (ours.ends_with("num_batches_tracked")) continue;
    const bool classifier = ours == "fc.weight" || ours == "fc.bias";
    if (!belongs(ours) && !classifier) {
      out.ignored.push_back(whole);
      continue;
    }
    if (const auto [at, fresh] = out.sources.emplace(ours, whole); !fresh) {
      const auto tried = wrapper_prefix(whole).empty() ? at->second : whole;
      throw Error(ExitCode::file, fmt::format("{}: {} and {} are both {}", path, at->second, whole, ours),
                  fmt::format("the file holds several networks; name the one to take, such as --prefix {}",
                              wrapper_prefix(tried).empty() ? "teacher." : wrapper_prefix(tried)));
    }
    if (const auto taken = wrapper_prefix(foreign); !taken.empty()) ++out.prefixes[taken];
    if (!classifier) out.shapes[ours] = file.entries().at(whole).shape;
  }
  return out;
}

/// The options for a preset that has the stages of these tensors; "" where none has.
std::string fitting_options(const Shapes& shapes) {
  std::vector<nn::Stage> stages;
  for (int s = 1;; ++s) {
    const auto tensor = [&](std::int64_t block, const char* name) {
      const auto found = shapes.find(fmt::format("trunk_output.block{0}.block{0}-{1}.{2}", s, block, name));
      return found == shapes.end() || found->second.size() != 4 ? nullptr : &found->second;
    };
    nn::Stage stage;
    while (tensor(stage.depth, "f.c.0.weight") != nullptr) ++stage.depth;
    const auto *wide = tensor(0, "f.c.0.weight"), *grouped = tensor(0, "f.b.0.weight");
    if (wide == nullptr || grouped == nullptr) break;
    stages.push_back({(*wide)[0], stage.depth, (*grouped)[1]});
  }
  for (const char* rule : {"pycls", "torchvision"}) {
    for (const auto& preset : nn::preset_names()) {
      config::Model model;
      model.preset = preset;
      model.width_rule = rule;
      const auto wanted = nn::architecture(model).stages;
      const auto equal = [](const nn::Stage& a, const nn::Stage& b) {
        return a.width == b.width && a.depth == b.depth && a.group_width == b.group_width;
      };
      if (std::equal(wanted.begin(), wanted.end(), stages.begin(), stages.end(), equal)) {
        return "--preset " + preset + (model.width_rule == "pycls" ? "" : " --width-rule torchvision");
      }
    }
  }
  return "";
}

template <class Number>
void read_number(const SafetensorsFile& file, const std::string& path, const char* key, Number& to) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return;
  const auto& text = found->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error(ExitCode::file, fmt::format("{}: its metadata say {} = \"{}\", wanted a number", path, key, text),
                "give the architecture: --preset, or the five numbers");
  }
}

/// The architecture that `seer export` wrote down.
std::optional<config::Model> recorded_model(const SafetensorsFile& file, const std::string& path) {
  const auto& about = file.metadata();
  const auto text = [&](const char* key) { return about.contains(key) ? about.at(key) : std::string(); };
  if (text("producer") != "seer") return std::nullopt;
  config::Model model;
  model.preset = text("preset");
  if (about.contains("width_rule")) model.width_rule = text("width_rule");
  if (!model.preset.empty()) return model;
  read_number(file, path, "depth", model.depth);
  read_number(file, path, "w0", model.w0);
  read_number(file, path, "wa", model.wa);
  read_number(file, path, "wm", model.wm);
  read_number(file, path, "group_width", model.group_width);
  return model;
}

/// "a (nearest: b), c (nearest: d)" for the first names that were not understood.
std::string with_nearest(const std::vector<std::string>& ignored, const Weights& weights) {
  constexpr std::size_t kShown = 4;
  std::vector<std::string> wanted, out;
  auto no_head = weights.head;
  no_head.dims.clear();
  const nn::Model net(weights.model, no_head);
  for (const auto* table : {&net.parameters(), &net.buffers()}) {
    for (const auto& entry : table->entries()) wanted.push_back(entry.name);
  }
  for (std::size_t i = 0; i < std::min(kShown, ignored.size()); ++i) {
    out.push_back(fmt::format("{} (nearest: {})", ignored[i], config::nearest(strip_wrappers(ignored[i]), wanted)));
  }
  return fmt::format("{}{}", fmt::join(out, ", "), ignored.size() > kShown ? " ..." : "");
}

}  // namespace

Import import_safetensors(const std::string& path, const std::optional<config::Model>& given, Naming naming,
                          const std::string& prefix) {
  if (const auto found = container_of(path); found.kind == Container::Kind::foreign) {
    throw Error(ExitCode::file, fmt::format("{} is {}, wanted a safetensors file", path, found.what), found.remedy);
  } else if (found.kind == Container::Kind::ours) {
    throw Error(ExitCode::file, fmt::format("{} is a file of seer's own, wanted a safetensors file", path),
                "features, eval, export and model.init_from take weights files and checkpoints as they are");
  }
  const SafetensorsFile file(path);
  auto renamed = rename(file, path, naming, prefix.empty() || prefix.back() == '.' ? prefix : prefix + ".");
  auto model = given ? given : recorded_model(file, path);
  const auto fitting = fitting_options(renamed.shapes);
  if (!model) {
    throw Error(ExitCode::input, fmt::format("no architecture given, and none in the metadata of {}", path),
                fitting.empty() ? "give --preset, or --depth --w0 --wa --wm --group-width"
                                : fmt::format("its shapes are those of {}", fitting));
  }
  Import out;
  auto& weights = out.weights;
  weights.model = *model;
  weights.model.init_from.clear();
  infer_head(renamed.shapes, path, weights.head);
  if (const auto problem = compare_with_architecture(renamed.shapes, weights.model, weights.head); !problem.empty()) {
    std::string remedy = "give the --preset (or the five numbers) this file was trained with";
    if (!fitting.empty()) {
      remedy = fmt::format("its shapes are those of {}", fitting);
    } else if (!renamed.shapes.empty() && model->width_rule == "pycls") {
      remedy += "; torchvision's own 800mf, 4.0gf and 8gf need --width-rule torchvision";
    }
    if (!renamed.ignored.empty()) {
      remedy += fmt::format(
          "; not understood in this file: {}; --prefix PREFIX takes only names that begin so, and "
          "cuts it off",
          with_nearest(renamed.ignored, weights));
    }
    throw Error(ExitCode::file,
                fmt::format("{} does not fit {}: {}", path,
                            model->preset.empty() ? "the architecture given" : "preset " + model->preset, problem),
                remedy);
  }
  for (const auto& [ours, foreign] : renamed.sources) {
    auto& group = ours.starts_with("fc.") ? weights.classifier : is_buffer(ours) ? weights.buffers : weights.parameters;
    group.emplace(ours, file.read(foreign));
  }
  for (const auto* key : kAbout) {
    if (const auto found = file.metadata().find(key); found != file.metadata().end()) weights.about.insert(*found);
  }
  weights.about.try_emplace("source", path);
  out.ignored = std::move(renamed.ignored);
  out.prefixes = std::move(renamed.prefixes);
  return out;
}

std::string import_command(const std::string& path) {
  std::string options = "--preset NAME";
  try {
    const SafetensorsFile file(path);
    const auto fitting = fitting_options(rename(file, path, Naming::automatic, "").shapes);
    if (recorded_model(file, path)) {
      options.clear();
    } else if (!fitting.empty()) {
      options = fitting;
    }
  } catch (const Error&) {  // import tells what is wrong with it
  }
  return fmt::format("seer import {} {} {}", shell_word(path),
                     shell_word(std::filesystem::path(path).replace_extension(".h5").string()), options);
}

}  // namespace seer::checkpoint
