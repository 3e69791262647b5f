// SPDX-License-Identifier: Apache-2.0
#include "seer/weights/weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "seer/base/build_info.hpp"
#include "seer/base/error.hpp"
#include "seer/base/names.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/h5/file.hpp"
#include "seer/nn/model.hpp"
#include "seer/weights/exchange.hpp"

namespace seer::weights {
namespace {

using checkpoint::shape_text;
using h5::Dims;
using h5::File;
using h5::Type;
namespace fs = std::filesystem;
using Tensors = std::map<std::string, HostTensor>;

const std::string kWeights = "seer-weights", kCheckpoint = "seer-checkpoint";

constexpr std::size_t kMaxAttribute_bytes = 60'000;  // HDF5 stores no larger attributes in an object's header

std::vector<std::int64_t> parse_dims(const std::string& text, const std::string& path) {
  std::vector<std::int64_t> dims;
  std::istringstream in(text);
  for (std::int64_t value = 0; in >> value && value > 0;) dims.push_back(value);
  if (!in.eof() || !in.fail())
    throw Error(ExitCode::file, fmt::format("{}: attribute head_dims is \"{}\"", path, text), "wanted: \"512 256\"");
  return dims;
}

void write_architecture(File& file, const Weights& w) {
  file.set("/", "format", kWeights);
  file.set("/", "version", std::int64_t{1});
  file.set("/", "build", build_info());
  config::visit_architecture(w.model, w.head, [&]<class Value>(const char* name, const Value& value) {
    if constexpr (std::is_same_v<Value, bool>)
      file.set("/", name, static_cast<std::int64_t>(value));
    else if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>)
      file.set("/", name, fmt::format("{}", fmt::join(value, " ")));
    else
      file.set("/", name, value);
  });
  for (const auto* key : kAbout)
    if (const auto found = w.about.find(key); found != w.about.end() && found->second.size() <= kMaxAttribute_bytes)
      file.set("/", key, found->second);
}

Weights architecture_of(const File& file) {
  const auto& path = file.path();
  const auto format = file.has("/", "format") ? file.get_string("/", "format") : "none";
  if (format != kWeights && format != kCheckpoint)
    throw Error(ExitCode::file,
                fmt::format("{}: format is \"{}\", wanted \"{}\" or \"{}\"", path, format, kWeights, kCheckpoint));
  if (const auto version = file.get_int("/", "version"); version != 1)
    throw Error(ExitCode::file, fmt::format("{}: version is {}, wanted 1", path, version));
  Weights w;
  if (format == kCheckpoint) {
    const auto config = config::parse_resolved(file.get_string("/", "config"), path);
    w.model = config.model;
    Shapes shapes;  // infer the head from them, since heads differ between methods
    for (const auto& name : file.list("/model")) {
      const auto dims = file.describe("/model/" + name).dims;
      shapes[name].assign(dims.begin(), dims.end());
    }
    infer_head(shapes, path, w.head);
    std::vector<std::int64_t> sizes;
    for (const auto& crops : config.crops) sizes.push_back(crops.size);
    w.about = {{"mean", fmt::format("[{}]", fmt::join(config.augment.mean, ", "))},
               {"std", fmt::format("[{}]", fmt::join(config.augment.std, ", "))},
               {"crop_sizes", shape_text(sizes)}};
    if (config.data.source == "shards") w.about["shards"] = config.data.shards;
    w.about["optimizer"] = config.optimizer.kind;
    if (file.has("/", "classes")) w.about["classes"] = classes_text(file.get_strings("/", "classes"));
  } else {
    config::visit_architecture(w.model, w.head, [&]<class Value>(const std::string& name, Value& value) {
      if (!file.has("/", name)) return;  // a file of an earlier version
      if constexpr (std::is_same_v<Value, std::string>)
        value = file.get_string("/", name);
      else if constexpr (std::is_same_v<Value, double>)
        value = file.get_double("/", name);
      else if constexpr (std::is_same_v<Value, bool>)
        value = file.get_int("/", name) != 0;
      else if constexpr (std::is_same_v<Value, std::int64_t>)
        value = file.get_int("/", name);
      else
        value = parse_dims(file.get_string("/", name), path);
    });
    require_known(w.model, path);
    for (const auto* key : kAbout)
      if (file.has("/", key)) w.about[key] = file.get_string("/", key);
  }
  w.model.init_from.clear();
  return w;
}

void write_group(File& file, const std::string& group, const Tensors& tensors) {
  if (tensors.empty()) return;
  file.create_group(group);
  for (const auto& [name, tensor] : tensors) {
    const auto object = group + "/" + name;
    file.create_dataset(object, Type::f32, Dims(tensor.shape.begin(), tensor.shape.end()));
    file.write(object, Type::f32, 0, tensor.values.size(), tensor.values.data());
  }
}

Tensors read_group(const File& file, const std::string& group) {
  Tensors out;
  if (!file.exists(group)) return out;
  for (const auto& name : file.list(group)) {
    const auto object = group + "/" + name;
    const auto dims = file.describe(object).dims;
    out[name] = {{dims.begin(), dims.end()}, file.read_all<float>(object, Type::f32)};
  }
  return out;
}

/// The head begins with the trunk's width, so that a head for another width shows as a mismatch.
nn::Model model_of(const config::Model& model, config::Head head) {
  if (!head.dims.empty()) head.dims.front() = nn::Model(model).trunk().width();
  return nn::Model(model, nn::projection_heads(head));
}

/// A checkpoint also holds the heads that only its method's training needs, such as a predictor. Moves them to
/// `method`.
void part_heads(Weights& weights) {
  const auto model = model_of(weights.model, weights.head);
  for (const auto& [tensors, table] :
       {std::pair(&weights.parameters, &model.parameters()), std::pair(&weights.buffers, &model.buffers())}) {
    std::erase_if(*tensors, [&, &entries = table->entries()](auto& tensor) {
      const bool other = std::ranges::find(entries, tensor.first, &nn::Parameter::name) == entries.end();
      if (other) weights.method.insert(std::move(tensor));
      return other;
    });
  }
}

/// Moves the classifier of a fine-tuned network to where that of an imported one is, under its names, if it takes the
/// pooled features.
void take_classifier(const config::Head& head, Tensors& from, Tensors& to) {
  if (!head.dims.empty()) return;
  for (const std::string part : {".weight", ".bias"})
    if (auto found = from.extract("classifier" + part); !found.empty()) to["fc" + part] = std::move(found.mapped());
}

/// Of a checkpoint folder the file with its tensors.
std::string file_of(const std::string& path) {
  std::error_code ec;
  return fs::is_directory(path, ec) ? (fs::path(path) / "state.h5").string() : path;
}

}  // namespace

void infer_head(const Shapes& shapes, const std::string& path, config::Head& head) {
  head.dims.clear();
  head.batchnorm = false;
  head.prototypes = 0;
  for (int i = 0;; ++i) {
    const auto layer = shapes.find(fmt::format("head.{}.weight", i));
    if (layer == shapes.end()) break;
    const auto& shape = layer->second;
    if (shape.size() != 2 || (i > 0 && shape[1] != head.dims.back()))
      throw Error(ExitCode::file, fmt::format("{}: {} has shape {}, wanted [any, {}]", path, layer->first,
                                              shape_text(shape), i > 0 ? std::to_string(head.dims.back()) : "any"));
    if (i == 0) head.dims.push_back(shape[1]);
    head.dims.push_back(shape[0]);
    head.batchnorm = head.batchnorm || shapes.contains(fmt::format("head.{}.norm.weight", i));
  }
  const auto prototypes = shapes.find("prototypes.weight");
  if (prototypes != shapes.end() && !head.dims.empty() && prototypes->second.size() == 2)
    head.prototypes = prototypes->second[0];
}

void require_known(const config::Model& model, const std::string& path) {
  try {
    const nn::Model made(model);
  } catch (const Error& error) {
    throw Error(ExitCode::file, fmt::format("{}: its architecture: {}", path, error.what()), error.remedy());
  }
}

std::string compare_with_architecture(const Shapes& shapes, const config::Model& model, const config::Head& head) {
  const auto wanted = model_of(model, head);
  std::vector<std::string> problems, missing, unexpected;
  std::set<std::string> known;
  for (const auto* table : {&wanted.parameters(), &wanted.buffers()}) {
    for (const auto& entry : table->entries()) {
      known.insert(entry.name);
      const auto found = shapes.find(entry.name);
      if (found == shapes.end()) {
        if (entry.elems > 0) missing.push_back(entry.name);
      } else if (found->second != entry.shape && problems.empty()) {
        problems.push_back(
            fmt::format("{} has shape {}, wanted {}", entry.name, shape_text(found->second), shape_text(entry.shape)));
      }
    }
  }
  for (const auto& [name, shape] : shapes)
    if (!known.contains(name)) unexpected.push_back(name);
  if (!missing.empty()) problems.push_back(fmt::format("{} missing: {}", missing.size(), few_names(missing, 8)));
  if (!unexpected.empty())
    problems.push_back(fmt::format("{} unexpected: {}", unexpected.size(), few_names(unexpected, 8)));
  return fmt::format("{}", fmt::join(problems, "; "));
}

Weights describe_weights(const std::string& path) {
  require_weights(path);
  return architecture_of(File::open(file_of(path)));
}

std::string classes_text(const std::vector<std::string>& classes) {
  return nlohmann::json(classes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Weights read_weights(const std::string& path, const Extras& extras) {
  require_weights(path);
  std::error_code ec;
  if (const auto problem = fs::is_directory(path, ec) ? checkpoint::verify(path) : ""; !problem.empty())
    throw Error(ExitCode::file, problem);
  const auto file = File::open(file_of(path));
  auto weights = architecture_of(file);
  const bool of_run = file.get_string("/", "format") == kCheckpoint;
  // Averaged parameters are those that the run tests; a teacher without a classifier is something else. A weights file
  // has them in /model already.
  const bool averaged = of_run && file.exists("/teacher/classifier.weight");
  weights.parameters = read_group(file, averaged ? "/teacher" : "/model");
  weights.buffers = read_group(file, averaged ? "/teacher_buffers" : "/buffers");
  weights.classifier = read_group(file, "/classifier");
  if (of_run) {
    take_classifier(weights.head, weights.parameters, weights.classifier);
    part_heads(weights);
  }
  visit_extras([&](const std::string& name, auto tensors, auto wanted) {
    if (!(extras.*wanted))
      (weights.*tensors).clear();
    else if (auto found = read_group(file, "/" + name); !found.empty())
      weights.*tensors = std::move(found);
  });
  if (of_run && extras.teacher) {
    weights.teacher.merge(read_group(file, "/teacher_buffers"));
    take_classifier(weights.head, weights.teacher, weights.teacher);
  }
  if (weights.momentum.empty()) weights.about.erase("optimizer");
  Shapes shapes;
  for (const auto* tensors : {&weights.parameters, &weights.buffers})
    for (const auto& [name, tensor] : *tensors) shapes[name] = tensor.shape;
  if (const auto problem = compare_with_architecture(shapes, weights.model, weights.head); !problem.empty())
    throw Error(ExitCode::file, fmt::format("{}: the tensors are not those of its architecture: {}", path, problem));
  return weights;
}

void write_weights(const std::string& path, const Weights& weights) {
  checkpoint::replace_file(path, [&](const std::string& temporary) {
    auto file = File::create(temporary);
    write_architecture(file, weights);
    write_group(file, "/model", weights.parameters);
    write_group(file, "/buffers", weights.buffers);
    write_group(file, "/classifier", weights.classifier);
    visit_extras([&](const std::string& name, auto tensors, auto) { write_group(file, "/" + name, weights.*tensors); });
    file.close();
  });
}

}  // namespace seer::weights
