// SPDX-License-Identifier: Apache-2.0
#include "seer/train/resume.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/manifest.hpp"

namespace seer::train {
namespace {

void check_batch(const config::Config& config, const PretrainOptions& options, const checkpoint::State& from,
                 const std::string& folder) {
  const auto batch = config.data.global_batch;
  if (from.global_batch == batch) return;
  if (!options.allow_batch_change) {
    throw Error(
        ExitCode::input,
        fmt::format("data.global_batch is {}, that of the checkpoint {} was {}", batch, folder, from.global_batch),
        "resume with the same global batch, on any number of ranks that divides it; or, knowing that update "
        "and schedule count in batches, add --allow-batch-change")
        .as_agreed();
  }
  log::warn(fmt::format(
      "data.global_batch is {} from here on, after {} updates and {} images in batches of {}: the data go on behind "
      "the images seen; the schedule goes on counting updates, with the rates as configured (by the rule of a rate in "
      "proportion to the batch, schedule.lr_* times {:.4g})",
      batch, from.update, from.images_seen, from.global_batch,
      static_cast<double>(batch) / static_cast<double>(from.global_batch)));
}

/// Images over which BatchNorm takes its statistics: those of its group of ranks.
std::int64_t batchnorm_images(const config::Config& config, std::int64_t ranks) {
  return std::min(config.parallel.bn_group_size, ranks) * config.data.global_batch / ranks;
}

/// Another split of the same batch over ranks changes nothing but the order of sums, as long as BatchNorm's groups hold
/// the same images.
void warn_of_other_groups(const config::Config& config, const checkpoint::State& from, int ranks) {
  std::int64_t before = 0;
  try {
    before = batchnorm_images(config::parse(from.config_toml, "the checkpoint's configuration", {}), from.ranks);
  } catch (const Error&) {
    return;  // of another version, with keys that this one does not know
  }
  const auto now = batchnorm_images(config, ranks);
  if (now == before) return;
  log::warn(
      fmt::format("BatchNorm takes its statistics over groups of {} images from here on ({} ranks, "
                  "parallel.bn_group_size = {}), of {} before: losses will differ from an undisturbed run's",
                  now, ranks, config.parallel.bn_group_size, before));
}

void warn_of_other_seed(const config::Config& config, const checkpoint::State& from) {
  if (from.seed == config.data.seed) return;
  log::warn(fmt::format("data.seed is {}, that of the checkpoint was {}: another order of images from here on",
                        config.data.seed, from.seed));
}

/// What is there to go on from: a checkpoint folder, a set on the nodes' disks, or neither.
struct Sources {
  std::optional<std::string> folder;
  std::optional<checkpoint::LocalSets::Found> set;
};

std::int64_t updates_of(const comm::Communicator& comm, const std::string& folder) {
  std::int64_t updates = 0;
  comm::agree(comm, "reading the checkpoint's manifest", [&] {
    if (comm.is_root()) updates = checkpoint::read_manifest(folder).update;
  });
  comm.broadcast(&updates, sizeof updates);
  return updates;
}

/// The newer of the two.
Sources newest(const config::Config& config, const comm::Communicator& comm, const checkpoint::LocalSets* local) {
  Sources out;
  std::optional<Error> damaged;
  try {
    out.folder = checkpoint::find_valid(comm, config.log.run_dir);
  } catch (const Error& e) {
    if (local == nullptr || !e.agreed()) throw;
    damaged = e;
  }
  if (local == nullptr) return out;
  out.set = local->find(comm, out.folder ? updates_of(comm, *out.folder) : -1);
  if (out.set) {
    out.folder.reset();
    if (damaged) log::warn(fmt::format("{}; the nodes' own copies are used", damaged->what()));
  } else if (damaged) {
    throw Error(*damaged);
  }
  return out;
}

/// The learner and the rest as the state has them, once the slabs are filled.
void put_back(Learner& learner, const checkpoint::State& state) {
  learner.share_loaded();
  learner.restore_queue(state);
  learner.restore_loss_scale(state);
}

}  // namespace

std::unique_ptr<checkpoint::LocalSets> open_local_sets(const config::Config& config, const comm::Communicator& comm,
                                                       const PretrainOptions& options) {
  const auto& folder = config.checkpoint.local_dir;
  if (folder.empty()) return nullptr;
  auto out = std::make_unique<checkpoint::LocalSets>(
      comm, config.log.run_dir,
      checkpoint::LocalSets::Options{folder, config.checkpoint.partner, options.resume != "auto"});
  if (config.checkpoint.partner && !out->partner()) {
    log::info("checkpoint.partner: there is one node, and none to give a copy to");
  }
  return out;
}

std::optional<checkpoint::State> resume(const config::Config& config, const comm::Communicator& comm,
                                        const PretrainOptions& options, Learner& learner,
                                        const checkpoint::LocalSets* local) {
  Sources sources;
  if (options.resume == "auto") {
    sources = newest(config, comm, local);
  } else if (options.resume != "never") {
    comm::agree(comm, "the checkpoint to resume", [&] {
      if (!std::filesystem::is_directory(options.resume)) {
        throw Error(ExitCode::input, fmt::format("--resume {}: no such folder", options.resume),
                    "auto, never, the folder of a checkpoint, or a run folder, which means its newest one");
      }
      sources.folder = checkpoint::resolve(options.resume);
    });
  }
  if (!sources.folder && !sources.set) {
    if (!config.model.init_from.empty()) learner.start_from(config.model.init_from);
    if (config.checkpoint.rehearse) checkpoint::rehearse(comm, config.log.run_dir);
    return std::nullopt;
  }
  checkpoint::State state;
  std::string from;
  if (sources.set) {
    from = fmt::format("the nodes' own copies in {}", config.checkpoint.local_dir);
    state = local->load(comm, *sources.set, learner.slabs());
    put_back(learner, state);
  } else {
    from = *sources.folder;
    state = restore(comm, from, learner, options.resume == "auto");
  }
  check_batch(config, options, state, from);
  warn_of_other_seed(config, state);
  warn_of_other_groups(config, state, comm.size());
  log::info(fmt::format("resumed from {} after {} updates, {} images", from, state.update, state.images_seen));
  return state;
}

checkpoint::State restore(const comm::Communicator& comm, const std::string& folder, Learner& learner, bool verified) {
  auto state = checkpoint::load(comm, folder, learner.slabs(), verified);
  put_back(learner, state);
  return state;
}

void put_newer_aside(const config::Config& config, const comm::Communicator& comm, std::int64_t update,
                     const checkpoint::LocalSets* local) {
  if (local != nullptr) local->go_on_from(comm, update);
  comm::agree(comm, "putting newer checkpoints aside", [&] {
    if (!comm.is_root() || update == 0) return;
    const auto aside = checkpoint::set_aside_newer(config.log.run_dir, update);
    if (!aside.empty()) log::warn(fmt::format("checkpoints of more than {} updates are now in {}", update, aside));
  });
}

std::vector<checkpoint::Shard> shards_of(const data::BatchSource& source) {
  std::vector<checkpoint::Shard> out;
  for (const auto& [name, bytes, images] : source.shards()) out.push_back({name, bytes, images});
  return out;
}

void warn_of_other_shards(const checkpoint::State& from, const data::BatchSource& source) {
  const auto now = shards_of(source);
  const auto text = [](const std::vector<checkpoint::Shard>& shards, std::size_t i) {
    if (i >= shards.size()) return std::string("nothing");
    return fmt::format("{} ({} images, {} bytes)", shards[i].name, shards[i].images, shards[i].bytes);
  };
  for (std::size_t i = 0; i < std::max(now.size(), from.shards.size()); ++i) {
    const auto here = text(now, i), there = text(from.shards, i);
    if (here == there) continue;
    log::warn(
        fmt::format("the data set is not that of the checkpoint: shard {} is {}, was {}; the run goes on, with "
                    "another sequence of images than an undisturbed one",
                    i, here, there));
    return;
  }
}

}  // namespace seer::train
