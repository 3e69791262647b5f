// SPDX-License-Identifier: Apache-2.0
#include "seer/weights/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ranges>
#include <type_traits>

#include "seer/base/error.hpp"
#include "seer/nn/model.hpp"
#include "seer/nn/trunk.hpp"

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

bool by_seer(const SafetensorsFile& file) {
  const auto producer = file.metadata().find("producer");
  return producer != file.metadata().end() && producer->second == "seer";
}

/// "momentum" for "momentum.stem.0.weight", which is not part of the network; "" for others.
std::string extra_of(const std::string& name) {
  std::string out;
  visit_extras([&](const std::string& extra, auto, auto) {
    if (name.starts_with(extra + ".")) out = extra;
  });
  return out;
}

/// The tensors of a file under our names.
struct Renamed {
  Shapes shapes;                               // without the classifier and the extras
  std::map<std::string, std::string> sources;  // ours -> the file's
  std::vector<std::string> ignored;
  std::map<std::string, std::int64_t> prefixes;
};

Renamed rename(const SafetensorsFile& file, const std::string& path, Naming naming, const std::string& prefix) {
  std::map<std::string, std::string> inside;  // name without --prefix -> the file's
  for (const auto& [name, entry] : file.entries())
    if (name.starts_with(prefix) && (!prefix.empty() || !by_seer(file) || extra_of(name).empty()))
      inside.emplace(name.substr(prefix.size()), name);
  if (inside.empty())
    throw Error(ExitCode::input, fmt::format("--prefix {}: no tensor name in {} begins with it", prefix, path),
                file.entries().empty() ? "" : fmt::format("the first name is {}", file.entries().begin()->first));
  const auto names = std::views::keys(inside);
  const int stride = projection_head_stride({names.begin(), names.end()});
  Renamed out;
  bool as_asked = naming != Naming::vissl;
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
    as_asked = as_asked || foreign.find("_feature_blocks.") != std::string::npos || ours != strip_wrappers(foreign);
    if (const auto taken = wrapper_prefix(foreign); !taken.empty()) ++out.prefixes[taken];
    if (!classifier) out.shapes[ours] = file.entries().at(whole).shape;
  }
  if (!as_asked && !out.sources.empty())
    throw Error(ExitCode::input,
                fmt::format("--names vissl: the names in {} are not VISSL's, for example {}", path,
                            out.sources.begin()->second),
                "use --names auto, which recognises the names");
  return out;
}

/// The command-line options for the preset whose trunk has these shapes; "" if there is none.
std::string fitting_options(const Shapes& shapes) {
  Shapes of_trunk = shapes;  // parameters only
  std::erase_if(of_trunk, [](const auto& entry) {
    return entry.first.starts_with("head.") || entry.first == "prototypes.weight" || is_buffer(entry.first);
  });
  for (const auto* kind : nn::trunk_kinds()) {
    for (auto model : kind->presets()) {
      model.trunk = kind->name;
      const nn::Model net(model);
      const auto& wanted = net.parameters().entries();
      const auto is = [&](const auto& entry) {
        const auto found = of_trunk.find(entry.name);
        return found != of_trunk.end() && found->second == entry.shape;
      };
      if (of_trunk.size() != wanted.size() || !std::ranges::all_of(wanted, is)) continue;
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
  if (!by_seer(file)) return std::nullopt;
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
      if (error != std::errc() || end != text.data() + text.size())
        throw Error(ExitCode::file, fmt::format("{}: its metadata say {} = \"{}\", wanted a number", path, key, text),
                    "give the architecture: --preset, or the five numbers");
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
  for (const auto* table : {&net.parameters(), &net.buffers()})
    for (const auto& entry : table->entries()) wanted.push_back(entry.name);
  for (std::size_t i = 0; i < std::min(kShown, ignored.size()); ++i)
    out.push_back(fmt::format("{} (nearest: {})", ignored[i], config::nearest(strip_wrappers(ignored[i]), wanted)));
  return fmt::format("{}{}", fmt::join(out, ", "), ignored.size() > kShown ? " ..." : "");
}

std::map<std::string, std::string> metadata_of(const Weights& w) {
  // "pt" is what PyTorch's own writer stores; some readers require it.
  std::map<std::string, std::string> out = {{"format", "pt"}, {"producer", "seer"}, {"architecture", w.model.trunk}};
  config::visit_architecture(w.model, w.head, [&]<class Value>(const char* name, const Value& value) {
    if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>)
      out[name] = fmt::format("[{}]", fmt::join(value, ", "));
    else
      out[name] = fmt::format("{}", value);
  });
  for (const auto& [name, value] : nn::trunk_kind(w.model).metadata(w.model)) out[name] = value;
  out.insert(w.about.begin(), w.about.end());
  return out;
}

}  // namespace

Import import_safetensors(const std::string& path, const std::optional<config::Model>& given, Naming naming,
                          const std::string& prefix) {
  const auto found = container_of(path);
  if (found.kind == Container::Kind::foreign)
    throw Error(ExitCode::file, fmt::format("{} is {}, wanted a safetensors file", path, found.what), found.remedy);
  if (found.kind == Container::Kind::ours)
    throw Error(ExitCode::file, fmt::format("{} is a file of seer's own, wanted a safetensors file", path),
                "features, eval, export and model.init_from take weights files and checkpoints as they are");
  const SafetensorsFile file(path);
  auto renamed = rename(file, path, naming, prefix.empty() || prefix.back() == '.' ? prefix : prefix + ".");
  auto model = given ? given : recorded_model(file, path);
  const auto fitting = fitting_options(renamed.shapes);
  if (!model)
    throw Error(ExitCode::input, fmt::format("no architecture given, and none in the metadata of {}", path),
                fitting.empty() ? "give --trunk and --preset, or --depth --w0 --wa --wm --group-width"
                                : fmt::format("its shapes are those of {}", fitting));
  Import out;
  auto& weights = out.weights;
  weights.model = *model;
  weights.model.init_from.clear();
  infer_head(renamed.shapes, path, weights.head);
  if (const auto problem = compare_with_architecture(renamed.shapes, weights.model, weights.head); !problem.empty()) {
    std::string remedy = "give the --preset (or the five numbers) this file was trained with";
    if (!fitting.empty())
      remedy = fmt::format("its shapes are those of {}", fitting);
    else if (!renamed.shapes.empty() && model->width_rule == "pycls")
      remedy += "; torchvision's own 800mf, 4.0gf and 8gf need --width-rule torchvision";
    if (!renamed.ignored.empty())
      remedy += fmt::format(
          "; unknown names in this file: {}. --prefix PREFIX takes only names that begin with PREFIX, and "
          "removes it",
          with_nearest(renamed.ignored, weights));
    throw Error(ExitCode::file,
                fmt::format("{} does not fit {}: {}", path,
                            model->preset.empty() ? "the architecture given" : "preset " + model->preset, problem),
                remedy);
  }
  for (const auto& [ours, foreign] : renamed.sources) {
    auto& group = ours.starts_with("fc.") ? weights.classifier : is_buffer(ours) ? weights.buffers : weights.parameters;
    group.emplace(ours, file.read(foreign));
  }
  if (auto& classifier = weights.classifier; !classifier.empty() && !classifier.contains("fc.weight")) {
    for (const auto& [name, tensor] : classifier) renamed.ignored.push_back(renamed.sources.at(name));
    classifier.clear();
  }
  if (by_seer(file) && prefix.empty()) {
    visit_extras([&](const std::string& extra, auto tensors, auto) {
      for (const auto& [name, entry] : file.entries())
        if (name.starts_with(extra + ".")) (weights.*tensors)[name.substr(extra.size() + 1)] = file.read(name);
    });
  }
  for (const auto* key : kAbout)
    if (const auto told = file.metadata().find(key); told != file.metadata().end()) weights.about.insert(*told);
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
    options = recorded_model(file, path) ? "" : fitting.empty() ? options : fitting;
  } catch (const Error&) {  // import reports what is wrong with it
  }
  return fmt::format("seer import {} {} {}", shell_word(path),
                     shell_word(std::filesystem::path(path).replace_extension(".h5").string()), options);
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
  if (naming != Naming::vissl)
    for (const auto& [name, tensor] : weights.classifier) items[name] = {tensor.shape, tensor.values.data(), 0};
  visit_extras([&](const std::string& extra, auto tensors, auto) {
    for (const auto& [name, tensor] : weights.*tensors)
      items[extra + "." + name] = {tensor.shape, tensor.values.data(), 0};
  });
  write_safetensors(path, items, metadata_of(weights));
}

std::string python_lines(const std::string& path, const Weights& weights) {
  auto out = "import safetensors.torch, torch, torchvision\n" + nn::trunk_kind(weights.model).python(weights.model);
  const auto fc = weights.classifier.find("fc.weight");
  out += fc == weights.classifier.end()
             ? "model.fc = torch.nn.Identity()\n"
             : fmt::format("model.fc = torch.nn.Linear({}, {})\n", fc->second.shape.at(1), fc->second.shape.at(0));
  out += "weights = safetensors.torch.load_file(" +
         nlohmann::json(path).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + ")\n";
  std::string others = R"("head.", "prototypes.")";
  visit_extras([&](const std::string& extra, auto tensors, auto) {
    if (!(weights.*tensors).empty()) others += fmt::format(R"(, "{}.")", extra);
  });
  out +=
      "model.load_state_dict({k: v for k, v in weights.items() if not k.startswith((" + others + "))})\nmodel.eval()";
  if (const auto& about = weights.about; about.contains("mean") && about.contains("std"))
    out += fmt::format("  # takes RGB in [0, 1], normalised with mean {}, std {}", about.at("mean"), about.at("std"));
  return out + "\n";
}

}  // namespace seer::weights
