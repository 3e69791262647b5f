// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "container.hpp"
#include "folders.hpp"
#include "seer/base/build_info.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/data/h5.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/model.hpp"

namespace seer::checkpoint {
namespace {

using data::h5::Dims;
using data::h5::File;
using data::h5::Type;
namespace fs = std::filesystem;
using Tensors = std::map<std::string, HostTensor>;

const std::string kWeights = "seer-weights", kCheckpoint = "seer-checkpoint";

constexpr std::size_t kMaxAttribute_bytes = 60'000;  // HDF5 stores no larger ones beside an object

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::vector<std::int64_t> parse_dims(const std::string& text, const std::string& path) {
  std::vector<std::int64_t> dims;
  const char *at = text.data(), *end = text.data() + text.size();
  while (at < end) {
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || (stop < end && *stop != ' ')) {
      throw Error(ExitCode::file, fmt::format("{}: attribute head_dims is \"{}\"", path, text), "wanted: \"512 256\"");
    }
    dims.push_back(value);
    at = stop < end ? stop + 1 : stop;
  }
  return dims;
}

void write_architecture(File& file, const Weights& w) {
  file.set("/", "format", kWeights);
  file.set("/", "version", std::int64_t{1});
  file.set("/", "build", build_info());
  file.set("/", "preset", w.model.preset);
  file.set("/", "width_rule", w.model.width_rule);
  file.set("/", "depth", w.model.depth);
  file.set("/", "w0", w.model.w0);
  file.set("/", "wa", w.model.wa);
  file.set("/", "wm", w.model.wm);
  file.set("/", "group_width", w.model.group_width);
  file.set("/", "head_dims", fmt::format("{}", fmt::join(w.head.dims, " ")));
  file.set("/", "head_batchnorm", static_cast<std::int64_t>(w.head.batchnorm));
  file.set("/", "prototypes", w.head.prototypes);
  for (const auto* key : kAbout) {
    const auto found = w.about.find(key);
    if (found != w.about.end() && found->second.size() <= kMaxAttribute_bytes) file.set("/", key, found->second);
  }
}

Weights architecture_of(const File& file) {
  const auto& path = file.path();
  const auto format = file.has("/", "format") ? file.get_string("/", "format") : "none";
  if (format != kWeights && format != kCheckpoint) {
    throw Error(ExitCode::file,
                fmt::format("{}: format is \"{}\", wanted \"{}\" or \"{}\"", path, format, kWeights, kCheckpoint));
  }
  if (const auto version = file.get_int("/", "version"); version != 1) {
    throw Error(ExitCode::file, fmt::format("{}: version is {}, wanted 1", path, version));
  }
  Weights w;
  if (format == kCheckpoint) {
    const auto config = config::parse_resolved(file.get_string("/", "config"), path);
    w.model = config.model;
    w.head = config.head;
    std::vector<std::int64_t> sizes;
    for (const auto& crops : config.crops) sizes.push_back(crops.size);
    w.about = {{"mean", fmt::format("[{}]", fmt::join(config.augment.mean, ", "))},
               {"std", fmt::format("[{}]", fmt::join(config.augment.std, ", "))},
               {"crop_sizes", shape_text(sizes)}};
    if (config.data.source == "shards") w.about["shards"] = config.data.shards;
  } else {
    w.model.preset = file.get_string("/", "preset");
    w.model.width_rule = file.get_string("/", "width_rule");
    w.model.depth = file.get_int("/", "depth");
    w.model.w0 = file.get_int("/", "w0");
    w.model.wa = file.get_double("/", "wa");
    w.model.wm = file.get_double("/", "wm");
    w.model.group_width = file.get_int("/", "group_width");
    w.head.dims = parse_dims(file.get_string("/", "head_dims"), path);
    w.head.batchnorm = file.get_int("/", "head_batchnorm") != 0;
    w.head.prototypes = file.get_int("/", "prototypes");
    for (const auto* key : kAbout) {
      if (file.has("/", key)) w.about[key] = file.get_string("/", key);
    }
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
    HostTensor tensor;
    for (const auto n : file.describe(object).dims) tensor.shape.push_back(static_cast<std::int64_t>(n));
    tensor.values = file.read_all<float>(object, Type::f32);
    out.emplace(name, std::move(tensor));
  }
  return out;
}

// The HDF5 file of a path that may be a checkpoint folder.
std::string file_of(const std::string& path) {
  std::error_code ec;
  return fs::is_directory(path, ec) ? (fs::path(path) / "state.h5").string() : path;
}

// "a, b, c and 4 more"
std::string few(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const auto shown = std::vector<std::string>(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kShown)));
  auto text = fmt::format("{}", fmt::join(shown, ", "));
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

}  // namespace

std::string compare_with_architecture(const std::map<std::string, std::vector<std::int64_t>>& shapes,
                                      const config::Model& model, const config::Head& head) {
  auto fitting = head;  // a head of another trunk's width is a mismatch like any other
  if (!fitting.dims.empty()) fitting.dims.front() = nn::architecture(model).features();
  const nn::Model wanted(model, fitting);
  std::string mismatch;
  std::vector<std::string> missing, unexpected;
  std::map<std::string, bool> known;
  for (const auto* table : {&wanted.parameters(), &wanted.buffers()}) {
    for (const auto& entry : table->entries()) {
      known[entry.name] = true;
      const auto found = shapes.find(entry.name);
      if (found == shapes.end()) {
        if (entry.elems > 0) missing.push_back(entry.name);
      } else if (found->second != entry.shape && mismatch.empty()) {
        mismatch =
            fmt::format("{} has shape {}, wanted {}", entry.name, shape_text(found->second), shape_text(entry.shape));
      }
    }
  }
  for (const auto& [name, shape] : shapes) {
    if (!known.contains(name)) unexpected.push_back(name);
  }
  std::vector<std::string> problems;
  if (!mismatch.empty()) problems.push_back(mismatch);
  if (!missing.empty()) problems.push_back(fmt::format("{} missing: {}", missing.size(), few(missing)));
  if (!unexpected.empty()) problems.push_back(fmt::format("{} unexpected: {}", unexpected.size(), few(unexpected)));
  return fmt::format("{}", fmt::join(problems, "; "));
}

Weights read_architecture(const std::string& path) {
  require_weights(path);
  return architecture_of(File::open(file_of(path)));
}

Weights read_weights(const std::string& path) {
  require_weights(path);
  std::error_code ec;
  if (fs::is_directory(path, ec)) {
    if (const auto problem = verify(path); !problem.empty()) throw Error(ExitCode::file, problem);
  }
  const auto file = File::open(file_of(path));
  auto weights = architecture_of(file);
  weights.parameters = read_group(file, "/model");
  weights.buffers = read_group(file, "/buffers");
  weights.classifier = read_group(file, "/classifier");
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const auto* tensors : {&weights.parameters, &weights.buffers}) {
    for (const auto& [name, tensor] : *tensors) shapes[name] = tensor.shape;
  }
  if (const auto problem = compare_with_architecture(shapes, weights.model, weights.head); !problem.empty()) {
    throw Error(ExitCode::file, fmt::format("{}: the tensors are not those of its architecture: {}", path, problem));
  }
  return weights;
}

void write_weights(const std::string& path, const Weights& weights) {
  const std::string temporary = path + ".tmp";
  try {
    auto file = File::create(temporary);
    write_architecture(file, weights);
    write_group(file, "/model", weights.parameters);
    write_group(file, "/buffers", weights.buffers);
    write_group(file, "/classifier", weights.classifier);
    file.close();
    sync_path(temporary);
    rename_durably(temporary, path);
  } catch (...) {
    std::error_code ec;
    fs::remove(temporary, ec);
    throw;
  }
}

}  // namespace seer::checkpoint
