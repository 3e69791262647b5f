// SPDX-License-Identifier: Apache-2.0
#include "state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"

namespace seer::checkpoint {
namespace {

using h5::Dims;
using h5::File;
using h5::Type;
using nlohmann::json;

const std::string kGroup = "/state";
const std::string kPlateau = "/state/plateau";
const std::string kKeptRate = "/state/kept_rate";
const std::string kGuard = "/state/guard";
const std::string kShardBytes = "/state/shard_bytes";
const std::string kShardImages = "/state/shard_images";

const std::string kShapeEnding = "_shape";  // <tensor's name>_shape

/// The attributes and data sets in kGroup that belong to State itself; all others are the method's.
const std::set<std::string> kOwnAttributes = {"update", "images_seen",  "loss_scale", "loss_scale_clean",
                                              "seed",   "global_batch", "ranks",      "shards"};
const std::set<std::string> kOwnDatasets = {kShardBytes, kShardImages, kPlateau, kKeptRate, kGuard};

std::int64_t product(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// Collects one member of every shard; set_column writes it back.
template <class T>
std::vector<T> column(const std::vector<Shard>& shards, T Shard::*member) {
  std::vector<T> out;
  for (const auto& s : shards) out.push_back(s.*member);
  return out;
}
template <class T>
void set_column(std::vector<Shard>& shards, T Shard::*member, const std::vector<T>& values) {
  if (values.size() != shards.size()) {
    throw Error(ExitCode::file, fmt::format("/state names {} shards and tells of {}", shards.size(), values.size()));
  }
  for (std::size_t i = 0; i < values.size(); ++i) shards[i].*member = values[i];
}

}  // namespace

// CBOR keeps doubles bit for bit (the plateau's best loss starts at infinity) and paths that are not UTF-8.
std::vector<std::uint8_t> pack(const State& s) {
  json tree = {{"update", s.update},
               {"images_seen", s.images_seen},
               {"loss_scale", s.loss_scale},
               {"seed", s.seed},
               {"global_batch", s.global_batch},
               {"ranks", s.ranks},
               {"shards", column(s.shards, &Shard::name)},
               {"shard_bytes", column(s.shards, &Shard::bytes)},
               {"shard_images", column(s.shards, &Shard::images)},
               {"plateau", s.plateau},
               {"queue_shape", json::array()},  // SwAV's, which version 1 of the format has in every state
               {"config", s.config_toml}};
  for (const auto& [name, value] : s.method.numbers) tree[name] = value;
  for (const auto& [name, tensor] : s.method.tensors) tree[name + kShapeEnding] = tensor.shape;
  // Write these keys only if set: then states without them have the same checksum as before the keys existed.
  if (s.loss_scale_clean >= 0) tree["loss_scale_clean"] = s.loss_scale_clean;
  if (!s.guard.empty()) tree["guard"] = s.guard;
  if (!s.kept_rate.empty()) tree["kept_rate"] = s.kept_rate;
  return json::to_cbor(tree);
}

void unpack(const std::vector<std::uint8_t>& bytes, State& s) {
  const auto tree = json::from_cbor(bytes);
  s.update = tree.at("update");
  s.images_seen = tree.at("images_seen");
  s.loss_scale = tree.at("loss_scale");
  s.loss_scale_clean = tree.value("loss_scale_clean", std::int64_t{-1});
  s.seed = tree.at("seed");
  s.global_batch = tree.at("global_batch");
  s.ranks = tree.at("ranks");
  const auto names = tree.at("shards").get<std::vector<std::string>>();
  s.shards.resize(names.size());
  set_column(s.shards, &Shard::name, names);
  set_column(s.shards, &Shard::bytes, tree.at("shard_bytes").get<std::vector<std::int64_t>>());
  set_column(s.shards, &Shard::images, tree.at("shard_images").get<std::vector<std::int64_t>>());
  s.plateau = tree.at("plateau").get<std::vector<double>>();
  s.config_toml = tree.at("config");
  for (const auto& [key, value] : tree.items()) {
    if (value.is_number_integer() && !kOwnAttributes.contains(key)) s.method.numbers[key] = value;
    if (!key.ends_with(kShapeEnding) || !value.is_array() || value.empty()) continue;
    auto& tensor = s.method.tensors[key.substr(0, key.size() - kShapeEnding.size())];
    tensor.shape = value.get<std::vector<std::int64_t>>();
    tensor.values.resize(static_cast<std::size_t>(product(tensor.shape)));
  }
  s.guard = tree.value("guard", std::vector<double>());
  s.kept_rate = tree.value("kept_rate", std::vector<double>());
}

std::vector<float> tensor_values(const State& state) {
  std::vector<float> out;
  for (const auto& [name, tensor] : state.method.tensors) {
    out.insert(out.end(), tensor.values.begin(), tensor.values.end());
  }
  return out;
}

void set_tensor_values(State& state, std::span<const float> values) {
  for (auto& [name, tensor] : state.method.tensors) {
    const auto count = std::min(values.size(), tensor.values.size());
    std::copy_n(values.begin(), count, tensor.values.begin());
    if (count < tensor.values.size()) throw Error(ExitCode::file, fmt::format("the state's {} is cut off", name));
    values = values.subspan(count);
  }
  if (!values.empty()) throw Error(ExitCode::file, "the state has values that belong to no tensor");
}

void share(const comm::Communicator& comm, State& state) {
  if (comm.size() == 1) return;
  auto packed = comm.is_root() ? pack(state) : std::vector<std::uint8_t>();
  std::int64_t bytes = static_cast<std::int64_t>(packed.size());
  comm.broadcast(&bytes, sizeof bytes);
  packed.resize(static_cast<std::size_t>(bytes));
  comm.broadcast(packed.data(), packed.size());
  if (!comm.is_root()) unpack(packed, state);
  for (auto& [name, tensor] : state.method.tensors) {
    comm.broadcast(tensor.values.data(), tensor.values.size() * sizeof(float));
  }
}

std::uint64_t state_checksum(const State& state) {
  const auto packed = pack(state);
  const auto values = tensor_values(state);
  const std::uint64_t parts[] = {checksum(packed.data(), packed.size()),
                                 checksum(values.data(), values.size() * sizeof(float))};
  return checksum(parts, sizeof parts);
}

void write_state(File& file, const State& s) {
  file.set("/", "format", std::string("seer-checkpoint"));
  file.set("/", "version", std::int64_t{1});
  file.set("/", "config", s.config_toml);
  file.set("/", "build", build_info());
  file.create_group(kGroup);
  file.set(kGroup, "update", s.update);
  file.set(kGroup, "images_seen", s.images_seen);
  file.set(kGroup, "loss_scale", s.loss_scale);
  if (s.loss_scale_clean >= 0) file.set(kGroup, "loss_scale_clean", s.loss_scale_clean);
  file.set(kGroup, "seed", s.seed);
  file.set(kGroup, "global_batch", s.global_batch);
  file.set(kGroup, "ranks", s.ranks);
  for (const auto& [name, value] : s.method.numbers) file.set(kGroup, name, value);
  if (!s.shards.empty()) {
    file.set(kGroup, "shards", column(s.shards, &Shard::name));
    for (const auto& [name, member] :
         {std::pair(kShardBytes, &Shard::bytes), std::pair(kShardImages, &Shard::images)}) {
      const auto values = column(s.shards, member);
      file.create_dataset(name, Type::i64, {values.size()});
      file.write(name, Type::i64, 0, values.size(), values.data());
    }
  }
  const auto write_numbers = [&](const std::string& name, const std::vector<double>& values) {
    if (values.empty()) return;
    file.create_dataset(name, Type::f64, {values.size()});
    file.write(name, Type::f64, 0, values.size(), values.data());
  };
  write_numbers(kPlateau, s.plateau);
  write_numbers(kKeptRate, s.kept_rate);
  write_numbers(kGuard, s.guard);
  for (const auto& [name, tensor] : s.method.tensors) {
    const auto path = kGroup + "/" + name;
    file.create_dataset(path, Type::f32, Dims(tensor.shape.begin(), tensor.shape.end()));
    file.write(path, Type::f32, 0, tensor.values.size(), tensor.values.data());
  }
}

State read_state(const File& file) {
  if (!file.has("/", "format") || file.get_string("/", "format") != "seer-checkpoint") {
    throw Error(ExitCode::file, fmt::format("{} is not a seer checkpoint", file.path()));
  }
  if (const auto version = file.get_int("/", "version"); version != 1) {
    throw Error(ExitCode::file, fmt::format("{} is of version {}, wanted 1", file.path(), version));
  }
  State s;
  s.config_toml = file.get_string("/", "config");
  s.update = file.get_int(kGroup, "update");
  s.images_seen = file.get_int(kGroup, "images_seen");
  s.loss_scale = file.get_double(kGroup, "loss_scale");
  if (file.has(kGroup, "loss_scale_clean")) s.loss_scale_clean = file.get_int(kGroup, "loss_scale_clean");
  s.seed = file.get_int(kGroup, "seed");
  s.global_batch = file.get_int(kGroup, "global_batch");
  s.ranks = file.get_int(kGroup, "ranks");
  if (file.has(kGroup, "shards")) {
    const auto names = file.get_strings(kGroup, "shards");
    s.shards.resize(names.size());
    set_column(s.shards, &Shard::name, names);
    set_column(s.shards, &Shard::bytes, file.read_all<std::int64_t>(kShardBytes, Type::i64));
    set_column(s.shards, &Shard::images, file.read_all<std::int64_t>(kShardImages, Type::i64));
  }
  if (file.exists(kPlateau)) s.plateau = file.read_all<double>(kPlateau, Type::f64);
  if (file.exists(kKeptRate)) s.kept_rate = file.read_all<double>(kKeptRate, Type::f64);
  if (file.exists(kGuard)) s.guard = file.read_all<double>(kGuard, Type::f64);
  for (const auto& name : file.attributes(kGroup)) {
    if (!kOwnAttributes.contains(name)) s.method.numbers[name] = file.get_int(kGroup, name);
  }
  for (const auto& name : file.list(kGroup)) {
    const auto path = kGroup + "/" + name;
    if (kOwnDatasets.contains(path)) continue;
    auto& tensor = s.method.tensors[name];
    for (const auto n : file.describe(path).dims) tensor.shape.push_back(static_cast<std::int64_t>(n));
    tensor.values = file.read_all<float>(path, Type::f32);
  }
  return s;
}

}  // namespace seer::checkpoint
