// SPDX-License-Identifier: Apache-2.0
// Imports weights from PyTorch.
#include "seer/weights/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "container.hpp"
#include "seer/base/error.hpp"
#include "seer/config/nearest.hpp"
#include "seer/nn/model.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/weights/safetensors.hpp"

namespace seer::weights {
namespace {

bool belongs(const std::string& name) {
  const auto root = name.substr(0, name.find('.'));
  const auto has_root = [&](const auto* kind) { return std::ranges::find(kind->roots, root) != kind->roots.end(); };
  return name.starts_with("head.") || name == "prototypes.weight" || std::ranges::any_of(nn::trunk_kinds(), has_root);
}

bool is_buffer(const std::string& name) {
  return name.ends_with(".running_mean") || name.ends_with(".running_var");
}

/// The tensors of a file under our names.
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

/// The command-line options for the preset whose trunk has these shapes; "" if there is none.
std::string fitting_options(const Shapes& shapes) {
  Shapes of_trunk;
  for (const auto& [name, shape] : shapes) {
    if (!name.starts_with("head.") && name != "prototypes.weight") of_trunk.emplace(name, shape);
  }
  for (const auto* kind : nn::trunk_kinds()) {
    for (auto model : kind->presets()) {
      model.trunk = kind->name;
      const nn::Model net(model);
      const auto& wanted = net.parameters().entries();
      const auto is = [&](const auto& entry) {
        const auto found = of_trunk.find(entry.name);
        return found != of_trunk.end() && found->second == entry.shape;
      };
      std::size_t parameters = 0;
      for (const auto& [name, shape] : of_trunk) parameters += is_buffer(name) ? 0 : 1;
      if (parameters != wanted.size() || !std::ranges::all_of(wanted, is)) continue;
      const config::Model usual;
      return (model.trunk == usual.trunk ? "" : "--trunk " + model.trunk + " ") + "--preset " + model.preset +
             (model.width_rule == usual.width_rule ? "" : " --width-rule " + model.width_rule) +
             (model.stem == usual.stem ? "" : " --stem " + model.stem);
    }
  }
  return "";
}

/// The architecture that `seer export` recorded in the file.
std::optional<config::Model> recorded_model(const SafetensorsFile& file, const std::string& path) {
  const auto& about = file.metadata();
  if (const auto producer = about.find("producer"); producer == about.end() || producer->second != "seer") {
    return std::nullopt;
  }
  config::Model model;
  config::Head unused;
  model.preset.clear();
  config::visit_architecture(model, unused, [&]<class Value>(const char* key, Value& value) {
    const auto found = about.find(key);
    if (found == about.end()) return;
    const auto& text = found->second;
    if constexpr (std::is_same_v<Value, std::string>) {
      value = text;
    } else if constexpr (std::is_same_v<Value, std::int64_t> || std::is_same_v<Value, double>) {
      if (!model.preset.empty()) return;  // the preset determines all numbers
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc() || end != text.data() + text.size()) {
        throw Error(ExitCode::file, fmt::format("{}: its metadata say {} = \"{}\", wanted a number", path, key, text),
                    "give the architecture: --preset, or the five numbers");
      }
    }
  });
  require_known(model, path);
  return model;
}

/// "a (nearest: b), c (nearest: d)" for the first unknown names.
std::string with_nearest(const std::vector<std::string>& ignored, const Weights& weights) {
  constexpr std::size_t kShown = 4;
  std::vector<std::string> wanted, out;
  const nn::Model net(weights.model);
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
                fitting.empty() ? "give --trunk and --preset, or --depth --w0 --wa --wm --group-width"
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
  } catch (const Error&) {  // import reports what is wrong with it
  }
  return fmt::format("seer import {} {} {}", shell_word(path),
                     shell_word(std::filesystem::path(path).replace_extension(".h5").string()), options);
}

}  // namespace seer::weights
