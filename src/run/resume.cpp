// SPDX-License-Identifier: Apache-2.0
#include "seer/run/resume.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "own_prototypes.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/config/config.hpp"
#include "seer/data/subset.hpp"
#include "seer/train/compute.hpp"
#include "weights_source.hpp"

namespace seer::run {
namespace {

bool covered(const std::vector<std::string>& names, const std::string& key) {
  return std::ranges::any_of(names, [&](const auto& name) { return config::covers(name, key); });
}

/// Lists the settings that differ from the checkpoint's. Error(input) for one that makes it another run unasked.
void check_settings(const config::Comparison& comparison, const PretrainOptions& options, const std::string& folder) {
  auto allowed = options.allow_changes;
  if (options.allow_batch_change) allowed.emplace_back("data.global_batch");
  std::vector<std::string> all, refused, names, changed;
  bool same_tensors = true;
  for (const auto& d : comparison.differences) {
    all.push_back(fmt::format("{} is {}, was {}", d.key, d.is, d.was));
    if (d.change != config::Change::meaning && d.change != config::Change::tensors) continue;
    if (covered(allowed, d.key)) {
      changed.push_back(d.key);
      continue;
    }
    refused.push_back(all.back());
    names.push_back(d.key);
    same_tensors = same_tensors && d.change != config::Change::tensors;
  }
  if (!refused.empty())
    throw Error(ExitCode::input,
                fmt::format("the configuration describes another run than the checkpoint {}: {}", folder,
                            fmt::join(refused, "; ")),
                same_tensors ? fmt::format("set it as it was; begin a new run with another log.run_dir or --resume "
                                           "never; or, if you want this change, add --allow-change {}",
                                           fmt::join(names, ","))
                             : "set it as it was, or begin a new run with another log.run_dir or --resume never: with "
                               "another [model], [head] or method.kind the tensors of a checkpoint usually do not fit; "
                               "model.init_from or finetune.from takes over the weights of its trunk")
        .as_agreed();
  if (!all.empty()) log::info(fmt::format("settings that differ from the checkpoint:\n  {}", fmt::join(all, "\n  ")));
  const auto differs = [&](const std::string& name) {
    return std::ranges::any_of(comparison.differences, [&](const auto& d) { return config::covers(name, d.key); });
  };
  for (const auto& d : comparison.differences)
    if (d.key == "model.init_from" || d.key == "finetune.from")
      log::warn(
          fmt::format("{} = {} has no effect: the run goes on from its checkpoint, whose configuration has {}. To "
                      "begin from other weights, use another log.run_dir or --resume never",
                      d.key, d.is, d.was));
  if (!changed.empty())
    log::warn(fmt::format("from here on this is another run, as permitted on the command line: {} changed",
                          fmt::join(changed, ", ")));
  if (!comparison.unknown.empty())
    log::info(
        fmt::format("not compared with the checkpoint, because one of the two versions of seer does not know it: {}",
                    fmt::join(comparison.unknown, ", ")));
  for (const auto& name : options.allow_changes) {
    if (differs(name)) continue;
    log::warn(fmt::format("--allow-change {} has no effect: no such setting differs from the checkpoint's", name));
  }
}

/// Number of images in BatchNorm's statistics: those of a group of ranks.
std::int64_t batchnorm_images(const config::Config& config, std::int64_t ranks) {
  return std::min(config.parallel.bn_group_size, ranks) * config.data.global_batch / ranks;
}

/// Warns of permitted changes that make the run differ from an undisturbed one. `stored`: the checkpoint's settings.
void warn_of_changes(const config::Config& config, const std::optional<config::Config>& stored,
                     const checkpoint::State& from, int ranks) {
  if (const auto batch = config.data.global_batch; from.global_batch != batch)
    log::warn(fmt::format(
        "data.global_batch is {} from here on; the {} updates before, of {} images in all, had batches of {}. The data "
        "continue after these images. The schedule still counts updates, and its rates stay as configured. To scale "
        "the rates with the batch, multiply schedule.lr_* by {:.4g}",
        batch, from.update, from.images_seen, from.global_batch,
        static_cast<double>(batch) / static_cast<double>(from.global_batch)));
  if (from.seed != config.data.seed)
    log::warn(fmt::format("data.seed is {}, but {} in the checkpoint: the order of images changes from here on",
                          config.data.seed, from.seed));
  // Another split of the batch over ranks changes only the order of sums, if BatchNorm's groups hold as many images.
  const auto now = batchnorm_images(config, ranks);
  if (const auto before = stored ? batchnorm_images(*stored, from.ranks) : now; now != before)
    log::warn(fmt::format(
        "BatchNorm takes its statistics over groups of {} images from here on ({} ranks, parallel.bn_group_size = {}), "
        "and took them over {} before: losses will differ from those of an undisturbed run",
        now, ranks, config.parallel.bn_group_size, before));
}

/// Where a start can continue from: a checkpoint folder, a set on the nodes' disks, or neither.
struct Sources {
  std::optional<std::string> folder;
  std::optional<checkpoint::LocalSets::Found> set;
};

/// The newer of the two.
Sources newest(const config::Config& config, const comm::Communicator& comm, const checkpoint::LocalSets* local) {
  Sources out;
  std::optional<Error> damaged;
  std::int64_t update = -1;
  try {
    out.folder = checkpoint::find_valid(comm, config.log.run_dir);
    if (out.folder) update = checkpoint::folder_update(std::filesystem::path(*out.folder).filename()).value();
  } catch (const Error& e) {
    if (local == nullptr || !e.agreed()) throw;
    damaged = e;
  }
  if (local != nullptr) out.set = local->find(comm, update);
  if (out.set) {
    out.folder.reset();
    if (damaged) log::warn(fmt::format("{}; the nodes' own copies are used", damaged->what()));
  } else if (damaged) {
    throw Error(*damaged);
  }
  return out;
}

/// Only the keys that the rates of this schedule depend on, without the length; all others at their defaults.
config::Schedule rates_of(config::Schedule s) {
  const config::Schedule defaults;
  s.total_updates = defaults.total_updates;
  s.epochs = defaults.epochs;
  if (s.kind != "cosine") s.lr_final = defaults.lr_final;
  if (s.kind != "multistep") {
    s.milestones = defaults.milestones;
    s.milestone_epochs = defaults.milestone_epochs;
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
  if (config.checkpoint.partner && !out->partner())
    log::info("checkpoint.partner has no effect: there is only one node");
  return out;
}

void settle_precision(config::Config& config, const comm::Communicator& comm, const PretrainOptions& options) {
  auto& compute = config.precision.compute;
  if (compute != "auto") return;
  if (!starts_anew(config, comm, options) && !covered(options.allow_changes, "precision.compute")) {
    comm::agree(comm, "the precision so far", [&] {
      if (!comm.is_root()) return;
      std::filesystem::path run_dir = config.log.run_dir;
      if (options.resume != "auto") run_dir = std::filesystem::path(checkpoint::resolve(options.resume)) / "../..";
      std::ifstream file(run_dir / "config.toml");
      const std::string text(std::istreambuf_iterator<char>(file), {});
      if (const auto stored = config::compare(text, config).stored; !text.empty() && stored)
        compute = stored->precision.compute;
    });
    comm.broadcast(compute);
    if (compute != "auto") {
      return log::info(fmt::format("precision.compute = \"auto\": {}, with which this run began", compute));
    }
  }
  train::settle_precision(config, comm);
}

std::optional<checkpoint::State> resume(const config::Config& config, const comm::Communicator& comm,
                                        const PretrainOptions& options, train::Learner& learner,
                                        const checkpoint::LocalSets* local, const std::vector<std::string>& classes) {
  for (const auto& name : options.allow_changes) config::require_name(name, "--allow-change");
  Sources sources;
  if (options.resume == "auto") {
    sources = newest(config, comm, local);
  } else if (options.resume != "never") {
    comm::agree(comm, "the checkpoint to resume", [&] {
      if (!std::filesystem::is_directory(options.resume))
        throw Error(ExitCode::input, fmt::format("--resume {}: no such folder", options.resume),
                    "give auto, never, the folder of a checkpoint, or a run folder, which means its newest checkpoint");
      sources.folder = checkpoint::resolve(options.resume);
    });
  }
  if (!sources.folder && !sources.set) {
    check_source(config, comm, classes);
    if (!config.finetune.from.empty()) learner.start_from(config.finetune.from, "finetune.from");
    if (!config.model.init_from.empty()) {
      learner.start_from(config.model.init_from);
      if (config.continuing.prototypes == "kmeans") take_own_prototypes(config, comm, learner);
    }
    if (config.checkpoint.rehearse) checkpoint::rehearse(comm, config.log.run_dir);
    return std::nullopt;
  }
  // Reads the state before the tensors, so that a changed network is reported as a changed key, not as a wrong shape.
  const auto from =
      sources.set ? fmt::format("the nodes' own copies in {}", config.checkpoint.local_dir) : *sources.folder;
  const auto load = [&](const std::vector<checkpoint::Slab>& slabs, bool verified) {
    return sources.set ? local->load(comm, *sources.set, slabs) : checkpoint::load(comm, from, slabs, verified);
  };
  auto state = load({}, options.resume == "auto");
  const auto comparison = config::compare(state.config_toml, config);
  check_settings(comparison, options, from);
  if (const auto other = other_classes(state.classes, classes); !other.empty())
    throw Error(ExitCode::input, fmt::format("the checkpoint {} learns other classes: {}", from, other),
                "give the shards that it was trained on, or pack with the classes in that order (--classes)")
        .as_agreed();
  state = load(learner.slabs(), true);
  learner.share_loaded();
  learner.restore(state);
  warn_of_changes(config, comparison.stored, state, comm.size());
  log::info(fmt::format("resumed from {} after {} updates, {} images", from, state.update, state.images_seen));
  return state;
}

void put_newer_aside(const config::Config& config, const comm::Communicator& comm, std::int64_t update,
                     const checkpoint::LocalSets* local) {
  if (local != nullptr) local->go_on_from(comm, update);
  comm::agree(comm, "putting newer checkpoints aside", [&] {
    if (!comm.is_root() || update == 0) return;
    const auto aside = checkpoint::set_aside_newer(config.log.run_dir, update);
    if (!aside.empty()) log::warn(fmt::format("the checkpoints of more than {} updates are now in {}", update, aside));
  });
}

train::Schedule schedule_from(const checkpoint::State& from, const config::Config& config, std::int64_t total,
                              std::uint64_t images, const PretrainOptions& options) {
  std::optional<train::KeptRate> kept;
  if (from.kept_rate.size() == 2) kept = {static_cast<std::int64_t>(from.kept_rate[0]), from.kept_rate[1]};
  const auto schedule_of = [&](const config::Schedule& schedule, std::int64_t updates, const auto& since) {
    train::Schedule out(schedule, updates, since);
    out.restore(from.plateau);
    return out;
  };
  const auto wanted = train::in_updates(config, images);
  const auto stored = config::compare(from.config_toml, config).stored;
  if (!stored) {
    log::warn(
        "the checkpoint's configuration has values that this version of seer refuses: learning rates cannot be "
        "compared");
    return schedule_of(wanted, total, kept);
  }
  std::uint64_t had = 0;
  if (data::subset_choice(stored->data).takes_all())  // else as many as now
    for (const auto& shard : from.shards) had += static_cast<std::uint64_t>(shard.images);
  const auto old_total =
      train::total_updates(*stored, had > 0 ? had : images, from.images_seen - from.update * from.global_batch);
  const bool same_rates = rates_of(stored->schedule) == rates_of(config.schedule);
  if (same_rates && total == old_total) return schedule_of(wanted, total, kept);

  const auto length =
      fmt::format("{} ({} updates; the checkpoint's run: {})", train::length_text(config), total, old_total);
  if (total < from.update)
    throw Error(ExitCode::input, fmt::format("{}: the checkpoint has done {} updates already", length, from.update),
                "lengthen the run, or go on from an earlier checkpoint with --resume")
        .as_agreed();
  const auto rate_of = [&](const config::Schedule& schedule, std::int64_t updates, const auto& since) {
    return schedule_of(schedule, updates, since).lr(from.update);
  };
  const auto differ = [](double a, double b) { return std::abs(a - b) > 1e-9 * std::max(a, b); };
  const double before = rate_of(train::in_updates(*stored, had > 0 ? had : images), old_total, kept);
  // Other keys take effect as configured, but a new length alone does not change the rate of this update.
  const bool follows = kept && config.schedule.kind == "cosine" && stored->schedule.kind == "cosine" &&
                       config.schedule.lr_peak == stored->schedule.lr_peak;
  const auto since = follows ? kept : std::nullopt;  // a kept rate stays, unless lr_peak changed
  const double same_length =
      same_rates ? before : rate_of(wanted, std::max(old_total, config.schedule.warmup_updates), since);
  const double configured = rate_of(wanted, total, std::nullopt);
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
        "{}: the learning rate goes on from {:.4g} and falls to {:.4g} over the {} updates left{}. To set it to {:.4g} "
        "instead, as in a run that had this length from its start, add --allow-change schedule.{}",
        length, now, config.schedule.lr_final, total - from.update,
        now < 1.01 * config.schedule.lr_final ? ", which is too small to learn much" : "", configured,
        config.schedule.epochs > 0 ? "epochs" : "total_updates"));
  }
  return schedule_of(wanted, total, keep);
}

void warn_of_other_shards(const checkpoint::State& from, const data::BatchSource& source) {
  const auto now = source.shards();
  const auto text = [](const std::vector<data::ShardIdentity>& shards, std::size_t i) {
    if (i >= shards.size()) return std::string("nothing");
    return fmt::format("{} ({} images, {} bytes)", shards[i].name, shards[i].images, shards[i].bytes);
  };
  for (std::size_t i = 0; i < std::max(now.size(), from.shards.size()); ++i) {
    const auto here = text(now, i), there = text(from.shards, i);
    if (here == there) continue;
    log::warn(
        fmt::format("the data set is not that of the checkpoint: shard {} is {}, was {}; the run goes on, but the "
                    "order of its images changes",
                    i, here, there));
    return;
  }
}

}  // namespace seer::run
