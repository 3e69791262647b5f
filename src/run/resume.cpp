// SPDX-License-Identifier: Apache-2.0
#include "seer/run/resume.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/config/compare.hpp"

namespace seer::run {
namespace {

bool covered(const std::vector<std::string>& names, const std::string& key) {
  return std::ranges::any_of(names, [&](const auto& name) { return config::covers(name, key); });
}

/// Lists the keys that differ from the checkpoint's configuration. Error(input) if one of them changes the meaning of
/// the run and --allow-change does not name it.
void check_settings(const config::Config& config, const PretrainOptions& options, const checkpoint::State& from,
                    const std::string& folder) {
  const auto comparison = config::compare(from.config_toml, config);
  auto allowed = options.allow_changes;
  if (options.allow_batch_change) allowed.emplace_back("data.global_batch");
  std::string all, refused, names, changed;
  bool fits = true;
  for (const auto& d : comparison.differences) {
    const auto line = fmt::format("{} is {}, was {}", d.key, d.is, d.was);
    all += "\n  " + line;
    if (d.change != config::Change::meaning && d.change != config::Change::tensors) continue;
    if (covered(allowed, d.key)) {
      changed += (changed.empty() ? "" : ", ") + d.key;
    } else {
      refused += (refused.empty() ? "" : "; ") + line;
      fits = fits && d.change != config::Change::tensors;
      names += (names.empty() ? "" : ",") + d.key;
    }
  }
  if (!refused.empty()) {
    throw Error(
        ExitCode::input,
        fmt::format("this would go on as another run than that of the checkpoint {}: {}", folder, refused),
        fits ? fmt::format("set it as it was; begin a new run with another log.run_dir or --resume never; or, "
                           "knowing what it means, add --allow-change {}",
                           names)
             : "set it as it was, or begin a new run with another log.run_dir or --resume never (model.init_from "
               "takes the trunk's weights along): with [model], [head] or method.kind changed no checkpoint fits")
        .as_agreed();
  }
  if (!all.empty()) log::info("settings that are not those of the checkpoint:" + all);
  if (const auto& init = config.model.init_from;
      !init.empty() &&
      std::ranges::any_of(comparison.differences, [](const auto& d) { return d.key == "model.init_from"; })) {
    log::warn(fmt::format("model.init_from = \"{}\" has no effect: the run goes on from its checkpoint", init));
  }
  if (!changed.empty()) log::warn(fmt::format("another run from here on, as allowed: {} changed", changed));
  if (!comparison.unknown.empty()) {
    log::info(fmt::format("not compared with the checkpoint, for one of the two versions of seer does not know it: {}",
                          fmt::join(comparison.unknown, ", ")));
  }
  for (const auto& name : options.allow_changes) {
    const auto names_it = [&](const auto& d) { return config::covers(name, d.key); };
    if (std::ranges::any_of(comparison.differences, names_it)) continue;
    log::warn(fmt::format("--allow-change {}: nothing there differs from the checkpoint's configuration", name));
  }
}

void warn_of_other_batch(const config::Config& config, const checkpoint::State& from) {
  const auto batch = config.data.global_batch;
  if (from.global_batch == batch) return;
  log::warn(fmt::format(
      "data.global_batch is {} from here on, after {} updates and {} images in batches of {}: the data go on behind "
      "the images seen; the schedule goes on counting updates, with the rates as configured (by the rule of a rate in "
      "proportion to the batch, schedule.lr_* times {:.4g})",
      batch, from.update, from.images_seen, from.global_batch,
      static_cast<double>(batch) / static_cast<double>(from.global_batch)));
}

/// Number of images in BatchNorm's statistics: those of a group of ranks.
std::int64_t batchnorm_images(const config::Config& config, std::int64_t ranks) {
  return std::min(config.parallel.bn_group_size, ranks) * config.data.global_batch / ranks;
}

/// Another split of the same batch over ranks changes only the order of sums, as long as BatchNorm's groups hold as
/// many images.
void warn_of_other_groups(const config::Config& config, const checkpoint::State& from, int ranks) {
  const auto stored = config::compare(from.config_toml, config).stored;
  if (!stored) return;
  const auto before = batchnorm_images(*stored, from.ranks);
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

/// Where a start can continue from: a checkpoint folder, a set on the nodes' disks, or neither.
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

/// Call once the slabs are filled: shares the loaded values, and restores method and loss scale.
void put_back(train::Learner& learner, const checkpoint::State& state) {
  learner.share_loaded();
  learner.restore(state);
}

/// Only the keys that the rates of this schedule depend on, without the length; all others at their defaults.
config::Schedule rates_of(config::Schedule s) {
  const config::Schedule defaults;
  s.total_updates = defaults.total_updates;
  s.epochs = defaults.epochs;
  if (s.kind != "cosine") s.lr_final = defaults.lr_final;
  if (s.kind != "multistep") {
    s.milestones = defaults.milestones;
    s.milestone_factor = defaults.milestone_factor;
  }
  if (s.kind != "plateau") {
    s.plateau_window = defaults.plateau_window;
    s.plateau_threshold = defaults.plateau_threshold;
    s.plateau_factor = defaults.plateau_factor;
    s.plateau_minimum = defaults.plateau_minimum;
  }
  return s;
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
                                        const PretrainOptions& options, train::Learner& learner,
                                        const checkpoint::LocalSets* local) {
  for (const auto& name : options.allow_changes) config::require_name(name, "--allow-change");
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
  // Reads the state before the tensors, so that a changed network is reported as a changed key, not as a wrong shape.
  const bool verified = options.resume == "auto";
  const auto from =
      sources.set ? fmt::format("the nodes' own copies in {}", config.checkpoint.local_dir) : *sources.folder;
  auto state = sources.set ? local->load(comm, *sources.set, {}) : checkpoint::load(comm, from, {}, verified);
  check_settings(config, options, state, from);
  if (sources.set) {
    state = local->load(comm, *sources.set, learner.slabs());
    put_back(learner, state);
  } else {
    state = restore(comm, from, learner, true);
  }
  warn_of_other_batch(config, state);
  warn_of_other_seed(config, state);
  warn_of_other_groups(config, state, comm.size());
  log::info(fmt::format("resumed from {} after {} updates, {} images", from, state.update, state.images_seen));
  return state;
}

checkpoint::State restore(const comm::Communicator& comm, const std::string& folder, train::Learner& learner,
                          bool verified) {
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

train::Schedule schedule_from(const checkpoint::State& from, const config::Config& config, std::int64_t total,
                              std::uint64_t images, const PretrainOptions& options) {
  std::optional<train::KeptRate> kept;
  if (from.kept_rate.size() == 2) kept = {static_cast<std::int64_t>(from.kept_rate[0]), from.kept_rate[1]};
  const auto put_back_plateau = [&](train::Schedule schedule) {
    schedule.restore(from.plateau);
    return schedule;
  };
  const auto stored = config::compare(from.config_toml, config).stored;
  if (!stored) {
    log::warn("this version refuses values of the checkpoint's configuration: its learning rate cannot be compared");
    return put_back_plateau({config.schedule, total, kept});
  }
  std::uint64_t had = 0;
  for (const auto& shard : from.shards) had += static_cast<std::uint64_t>(shard.images);
  const auto old_total =
      train::total_updates(*stored, had > 0 ? had : images, from.images_seen - from.update * from.global_batch);
  const bool same_rates = rates_of(stored->schedule) == rates_of(config.schedule);
  if (same_rates && total == old_total) return put_back_plateau({config.schedule, total, kept});

  const auto length =
      fmt::format("{} ({} updates; the checkpoint's run: {})", train::length_text(config), total, old_total);
  if (total < from.update) {
    throw Error(ExitCode::input, fmt::format("{}: the checkpoint has done {} updates already", length, from.update),
                "lengthen the run, or go on from an earlier checkpoint with --resume")
        .as_agreed();
  }
  const auto rate_of = [&](const config::Schedule& schedule, std::int64_t updates,
                           std::optional<train::KeptRate> since) {
    return put_back_plateau({schedule, updates, since}).lr(from.update);
  };
  const auto differ = [](double a, double b) { return std::abs(a - b) > 1e-9 * std::max(a, b); };
  const double before = rate_of(stored->schedule, old_total, kept);
  // Other keys take effect as configured, but a new length alone does not change the rate of this update.
  const bool follows = kept && config.schedule.kind == "cosine" && stored->schedule.kind == "cosine" &&
                       config.schedule.lr_peak == stored->schedule.lr_peak;
  const auto since = follows ? kept : std::nullopt;  // a kept rate stays, unless lr_peak changed
  const double same_length =
      same_rates ? before : rate_of(config.schedule, std::max(old_total, config.schedule.warmup_updates), since);
  const double configured = rate_of(config.schedule, total, {});
  const bool length_allowed =
      covered(options.allow_changes, "schedule.total_updates") || covered(options.allow_changes, "schedule.epochs");
  auto keep = total == old_total ? since : std::nullopt;
  if (total != old_total && !length_allowed && differ(configured, same_length)) keep = {from.update, same_length};
  const double now = keep ? same_length : configured;
  if (differ(now, before))
    log::warn(fmt::format("the learning rate goes from {:.4g} to {:.4g} in one update", before, now));
  if (total == from.update) {
    log::warn(fmt::format("{}: the run ends here, at the learning rate {:.4g}", length, before));
  } else if (keep && total != old_total) {
    log::warn(fmt::format(
        "{}: the learning rate goes on from {:.4g} and falls to {:.4g} over the {} updates left{}; --allow-change "
        "schedule.{} would set it to {:.4g}, that of a run which had this length from its start",
        length, now, config.schedule.lr_final, total - from.update,
        now < 1.01 * config.schedule.lr_final ? ", where it teaches little" : "",
        config.schedule.epochs > 0 ? "epochs" : "total_updates", configured));
  }
  return put_back_plateau({config.schedule, total, keep});
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

}  // namespace seer::run
