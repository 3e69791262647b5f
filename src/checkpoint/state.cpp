// SPDX-License-Identifier: Apache-2.0
#include "state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {
namespace {

using h5::Dims;
using h5::File;
using h5::Type;
using nlohmann::json;

const std::string kGroup = "/state", kInGroup = kGroup + "/";
constexpr const char* kClasses = "classes";
const std::string kShapeEnding = "_shape";  // <tensor's name>_shape

/// Calls visit(name, member, optional) for the numbers of a state, in the order of the file. An optional one is left
/// out if it is negative.
void visit_numbers(auto& s, auto visit) {
  visit("update", s.update, false);
  visit("images_seen", s.images_seen, false);
  visit("loss_scale", s.loss_scale, false);
  visit("loss_scale_clean", s.loss_scale_clean, true);
  visit("seed", s.seed, false);
  visit("global_batch", s.global_batch, false);
  visit("ranks", s.ranks, false);
}

/// Calls visit(name, member) for the lists of a state, in the order of the file.
void visit_lists(auto& s, auto visit) {
  visit("plateau", s.plateau);
  visit("kept_rate", s.kept_rate);
  visit("guard", s.guard);
  visit("watch", s.watch);
}

/// Calls visit(name, pointer to member) for the columns of the table of shards.
void visit_shards(auto visit) {
  visit("shards", &data::ShardIdentity::name);
  visit("shard_bytes", &data::ShardIdentity::bytes);
  visit("shard_images", &data::ShardIdentity::images);
}

/// The names in kGroup that belong to State itself; all others are the method's.
std::set<std::string> own_names() {
  std::set<std::string> out;
  const auto add = [&](const char* name, auto&&...) { out.insert(name); };
  State any;
  visit_numbers(any, add);
  visit_lists(any, add);
  visit_shards(add);
  return out;
}

/// Collects one member of every shard; set_column writes it back.
template <class T>
std::vector<T> column(const std::vector<data::ShardIdentity>& shards, T data::ShardIdentity::*member) {
  std::vector<T> out;
  for (const auto& s : shards) out.push_back(s.*member);
  return out;
}
template <class T>
void set_column(std::vector<data::ShardIdentity>& shards, T data::ShardIdentity::*member,
                const std::type_identity_t<std::vector<T>>& values) {
  if (!shards.empty() && values.size() != shards.size())
    throw Error(ExitCode::file,
                fmt::format("/state has {} shards, but {} values for them", shards.size(), values.size()));
  shards.resize(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) shards[i].*member = values[i];
}

/// All but the classes, which the checksum leaves out: versions that do not know them can then read the checkpoint.
json tree_of(const State& s) {
  json tree = {{"plateau", s.plateau},
               {"queue_shape", json::array()},  // SwAV's, which version 1 of the format has in every state
               {"config", s.config_toml}};
  // Optional values and lists only if set: then states without them have the same checksum as before the keys existed.
  visit_numbers(s, [&](const char* name, const auto& value, bool optional) {
    if (!optional || value >= 0) tree[name] = value;
  });
  visit_lists(s, [&](const char* name, const auto& values) {
    if (!values.empty()) tree[name] = values;
  });
  visit_shards([&](const char* name, auto member) { tree[name] = column(s.shards, member); });
  for (const auto& [name, value] : s.method.numbers) tree[name] = value;
  for (const auto& [name, tensor] : s.method.tensors) tree[name + kShapeEnding] = tensor.shape;
  return tree;
}

}  // namespace

// CBOR keeps doubles bit for bit (the plateau's best loss starts at infinity) and paths that are not UTF-8.
std::string pack(const State& s) {
  auto tree = tree_of(s);
  if (!s.classes.empty()) tree[kClasses] = s.classes;
  std::string bytes;
  json::to_cbor(tree, bytes);
  return bytes;
}

void unpack(const std::string& bytes, State& s) {
  const auto tree = json::from_cbor(bytes);
  visit_numbers(s, [&](const char* name, auto& value, bool optional) {
    if (!optional || tree.contains(name)) tree.at(name).get_to(value);
  });
  visit_lists(s, [&](const char* name, auto& values) { values = tree.value(name, std::vector<double>()); });
  visit_shards([&](const char* name, auto member) { set_column(s.shards, member, tree.at(name)); });
  s.classes = tree.value(kClasses, std::vector<std::string>());
  s.config_toml = tree.at("config");
  const auto own = own_names();
  for (const auto& [key, value] : tree.items()) {
    if (value.is_number_integer() && !own.contains(key)) s.method.numbers[key] = value;
    if (!key.ends_with(kShapeEnding) || !value.is_array() || value.empty()) continue;
    auto& tensor = s.method.tensors[key.substr(0, key.size() - kShapeEnding.size())];
    tensor.shape = value.get<std::vector<std::int64_t>>();
    tensor.values.resize(static_cast<std::size_t>(elements_of(tensor.shape)));
  }
}

std::vector<float> tensor_values(const State& state) {
  std::vector<float> out;
  for (const auto& [name, tensor] : state.method.tensors)
    out.insert(out.end(), tensor.values.begin(), tensor.values.end());
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

std::uint64_t state_checksum(const State& state) {
  const auto values = tensor_values(state);
  std::string bytes;
  json::to_cbor(tree_of(state), bytes);
  const std::uint64_t parts[] = {checksum(bytes), checksum(values.data(), values.size() * sizeof(float))};
  return checksum(parts, sizeof parts);
}

void write_state(File& file, const State& s) {
  file.set("/", "format", std::string("seer-checkpoint"));
  file.set("/", "version", std::int64_t{1});
  file.set("/", "config", s.config_toml);
  file.set("/", "build", build_info());
  if (!s.classes.empty()) file.set("/", kClasses, s.classes);
  file.create_group(kGroup);
  visit_numbers(s, [&](const char* name, const auto& value, bool optional) {
    if (!optional || value >= 0) file.set(kGroup, name, value);
  });
  for (const auto& [name, value] : s.method.numbers) file.set(kGroup, name, value);
  const auto write = [&](const std::string& name, Type type, const Dims& dims, const auto& values) {
    file.create_dataset(kInGroup + name, type, dims);
    file.write(kInGroup + name, type, 0, values.size(), values.data());
  };
  if (!s.shards.empty())
    visit_shards([&]<class T>(const char* name, T data::ShardIdentity::*member) {
      if constexpr (std::is_same_v<T, std::string>)
        file.set(kGroup, name, column(s.shards, member));
      else
        write(name, Type::i64, {s.shards.size()}, column(s.shards, member));
    });
  visit_lists(s, [&](const char* name, const auto& values) {
    if (!values.empty()) write(name, Type::f64, {values.size()}, values);
  });
  for (const auto& [name, tensor] : s.method.tensors)
    write(name, Type::f32, Dims(tensor.shape.begin(), tensor.shape.end()), tensor.values);
}

State read_state(const File& file) {
  if (!file.has("/", "format") || file.get_string("/", "format") != "seer-checkpoint")
    throw Error(ExitCode::file, fmt::format("{} is not a seer checkpoint", file.path()));
  if (const auto version = file.get_int("/", "version"); version != 1)
    throw Error(ExitCode::file, fmt::format("{} is of version {}, wanted 1", file.path(), version));
  State s;
  s.config_toml = file.get_string("/", "config");
  visit_numbers(s, [&]<class Value>(const char* name, Value& value, bool optional) {
    if (optional && !file.has(kGroup, name)) return;
    if constexpr (std::is_same_v<Value, double>)
      value = file.get_double(kGroup, name);
    else
      value = file.get_int(kGroup, name);
  });
  if (file.has(kGroup, "shards"))
    visit_shards([&]<class T>(const char* name, T data::ShardIdentity::*member) {
      if constexpr (std::is_same_v<T, std::string>)
        set_column(s.shards, member, file.get_strings(kGroup, name));
      else
        set_column(s.shards, member, file.read_all<T>(kInGroup + name, Type::i64));
    });
  if (file.has("/", kClasses)) s.classes = file.get_strings("/", kClasses);
  visit_lists(s, [&](const char* name, auto& values) {
    if (file.exists(kInGroup + name)) values = file.read_all<double>(kInGroup + name, Type::f64);
  });
  const auto own = own_names();
  for (const auto& name : file.attributes(kGroup))
    if (!own.contains(name)) s.method.numbers[name] = file.get_int(kGroup, name);
  for (const auto& name : file.list(kGroup)) {
    if (own.contains(name)) continue;
    auto& tensor = s.method.tensors[name];
    for (const auto n : file.describe(kInGroup + name).dims) tensor.shape.push_back(static_cast<std::int64_t>(n));
    tensor.values = file.read_all<float>(kInGroup + name, Type::f32);
  }
  return s;
}

}  // namespace seer::checkpoint
