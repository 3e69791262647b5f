// SPDX-License-Identifier: Apache-2.0
#include "state.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"

namespace seer::checkpoint {
namespace {

using data::h5::Dims;
using data::h5::File;
using data::h5::Type;
using nlohmann::json;

const std::string kGroup = "/state";
const std::string kQueue = "/state/queue";
const std::string kPlateau = "/state/plateau";
const std::string kKeptRate = "/state/kept_rate";
const std::string kGuard = "/state/guard";
const std::string kShardBytes = "/state/shard_bytes";
const std::string kShardImages = "/state/shard_images";

/// One member of every shard; the reverse gives them back to as many.
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

// CBOR keeps doubles to the bit (the plateau's best loss starts at infinity) and paths that are not UTF-8.
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
               {"queue_filled", s.queue_filled},
               {"queue_shape", s.queue_shape},
               {"config", s.config_toml}};
  // Only where there is one: the checksum of a state without it is what it was before there was such a thing.
  if (s.loss_scale_clean >= 0) tree["loss_scale_clean"] = s.loss_scale_clean;
  if (s.queue_place >= 0) tree["queue_place"] = s.queue_place;
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
  s.queue_filled = tree.at("queue_filled");
  s.queue_shape = tree.at("queue_shape").get<std::vector<std::int64_t>>();
  s.config_toml = tree.at("config");
  s.queue_place = tree.value("queue_place", std::int64_t{-1});
  s.guard = tree.value("guard", std::vector<double>());
  s.kept_rate = tree.value("kept_rate", std::vector<double>());
}

void share(const comm::Communicator& comm, State& state) {
  if (comm.size() == 1) return;
  auto packed = comm.is_root() ? pack(state) : std::vector<std::uint8_t>();
  std::int64_t bytes = static_cast<std::int64_t>(packed.size());
  comm.broadcast(&bytes, sizeof bytes);
  packed.resize(static_cast<std::size_t>(bytes));
  comm.broadcast(packed.data(), packed.size());
  if (!comm.is_root()) unpack(packed, state);
  std::int64_t count = static_cast<std::int64_t>(state.queue.size());
  comm.broadcast(&count, sizeof count);
  state.queue.resize(static_cast<std::size_t>(count));
  comm.broadcast(state.queue.data(), state.queue.size() * sizeof(float));
}

std::uint64_t state_checksum(const State& state) {
  const auto packed = pack(state);
  const std::uint64_t parts[] = {checksum(packed.data(), packed.size()),
                                 checksum(state.queue.data(), state.queue.size() * sizeof(float))};
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
  file.set(kGroup, "queue_filled", s.queue_filled);
  if (s.queue_place >= 0) file.set(kGroup, "queue_place", s.queue_place);
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
  if (!s.queue.empty()) {
    file.create_dataset(kQueue, Type::f32, Dims(s.queue_shape.begin(), s.queue_shape.end()));
    file.write(kQueue, Type::f32, 0, s.queue.size(), s.queue.data());
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
  s.queue_filled = file.get_int(kGroup, "queue_filled");
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
  if (file.has(kGroup, "queue_place")) s.queue_place = file.get_int(kGroup, "queue_place");
  if (file.exists(kQueue)) {
    for (const auto n : file.describe(kQueue).dims) s.queue_shape.push_back(static_cast<std::int64_t>(n));
    s.queue = file.read_all<float>(kQueue, Type::f32);
  }
  return s;
}

}  // namespace seer::checkpoint
