// SPDX-License-Identifier: Apache-2.0
// Whether the values of a configuration fit each other. The defaults do, so an error comes from a value that was set.
#include "schema.hpp"

namespace seer::config {
namespace {

/// Fills in, from [augment], the keys that a table of [[crops]] does not override.
void complete_overrides(Reading& r) {
  for (std::size_t i = 0; i < r.config.crops.size(); ++i) {
    auto& own = r.config.crops[i].augment;
    if (!own) continue;
    Config with = r.config;
    own = r.config.augment;
    for (const auto& key : keys()) {
      if (key.overridden() == nullptr || !r.was_set(fmt::format("crops.{}.{}", i, key.name))) continue;
      const auto copy = []<class A, class B>(A* to, const B* from) {
        if constexpr (std::is_same_v<A, B>) *to = *from;
      };
      std::visit(copy, key.field(r.config, i), key.field(with, i));
    }
    if (own == r.config.augment) own.reset();
  }
}

/// Refuses keys that would have no effect: whoever set them expects one.
void check_idle(Reading& r) {
  auto& c = r.config;
  const auto idle = [&](bool bad, const std::string& path, const auto& found, const std::string& allowed) {
    if (bad && r.was_set(path) && !r.failed.contains(path))
      r.complain(r.place(path), fmt::format("{}", found), allowed);
  };
  // A complete configuration lists the keys of all methods and trunks: those of others are allowed at their defaults.
  Config standard;
  for (const auto& key : keys()) {
    const auto because = unused_because(key, c);
    if (because.empty()) continue;
    const auto found = write(key.field(c, 0)), usual = write(key.field(standard, 0));
    idle(found != usual, key.path(), found,
         fmt::format("only its default {}, because it has no effect where {}; leave it out", usual, because));
  }
  const auto flip = c.faults.flip_update, replay = c.guard.replay_every;
  idle(flip > 0 && (replay == 0 || flip % replay != 0), "faults.flip_update", flip,
       "an update that guard.replay_every does twice");
  idle(c.optimizer.nesterov && c.optimizer.kind != "sgd", "optimizer.nesterov", true,
       "false where optimizer.kind = \"lars\"");
  idle(!c.finetune.from.empty() && !c.model.init_from.empty(), "model.init_from", quote(c.model.init_from),
       "\"\" where finetune.from is given");
  const auto& tune = c.finetune;
  idle(tune.classifier == "keep" && (tune.from.empty() || tune.head_layers > 0), "finetune.classifier", quote("keep"),
       "\"new\" without finetune.from, or with finetune.head_layers, whose BatchNorm is new");
  const auto& folder = c.checkpoint.local_dir;
  const auto local = c.checkpoint.local_every_updates;
  idle(local > 0 && folder.empty(), "checkpoint.local_every_updates", local,
       "0 where there is no checkpoint.local_dir");
  const auto per_class = c.data.per_class;
  idle(per_class > 0 && c.data.fraction < 1, "data.fraction", c.data.fraction, "1 where data.per_class is given");
  const auto group = c.parallel.shard_group;
  idle(group != 0 && c.parallel.shard == "none", "parallel.shard_group", group, "0 where parallel.shard = \"none\"");
  idle(c.continuing.prototypes == "kmeans" && c.data.source != "shards", "continue.prototypes",
       quote(c.continuing.prototypes), "\"keep\" or \"random\" where data.source is not \"shards\"");
  for (auto at = folder.find('%'); at != std::string::npos; at = folder.find('%', at + 1)) {
    const bool known = at + 1 < folder.size() && (folder[at + 1] == 'h' || folder[at + 1] == 'n');
    idle(!known, "checkpoint.local_dir", quote(folder), "%h and %n after a %");
  }
}

void check_crops(Reading& r) {
  if (std::ranges::any_of(r.failed, [](const auto& path) { return path.starts_with("crops"); })) return;
  std::int64_t total = 0;
  for (const auto& crops : r.config.crops) total += crops.count;
  if (total < 2 && r.config.method.kind != "supervised") {
    r.complain(r.place("crops"), fmt::format("{} crop in all", total),
               "2 or more: the method learns one crop from another");
  }
  const std::string path = "swav.crops_for_assign";
  if (r.failed.contains(path) || r.config.method.kind != "swav") return;
  std::set<std::int64_t> seen;
  for (const auto crop : r.config.swav.crops_for_assign) {
    if (crop >= total) {
      r.complain(r.place(path), fmt::format("crop {}", crop),
                 fmt::format("integers from 0 to {}: [[crops]] define {} crops", total - 1, total));
    } else if (!seen.insert(crop).second) {
      r.complain(r.place(path), fmt::format("crop {} twice", crop), "each once");
    }
  }
}

/// A model of [model] is a preset, or without a preset all of five numbers, for trunks that have them.
void check_model(Reading& r) {
  constexpr const char* kNumbers[] = {"model.depth", "model.w0", "model.wa", "model.wm", "model.group_width"};
  constexpr const char* kAll = "all of depth, w0, wa, wm, group_width";
  const auto is_set = [&](const std::string& path) { return r.was_set(path); };
  const auto failed = [&](const std::string& path) { return r.failed.contains(path); };
  if (std::ranges::any_of(kNumbers, failed) || failed("model.preset") || failed("model.trunk")) return;
  auto& model = r.config.model;
  const bool has_numbers = unused_because(*find_key("model", "depth"), r.config).empty();
  const auto* const first = std::ranges::find_if(kNumbers, is_set);
  if (has_numbers && !is_set("model.preset") && first != std::end(kNumbers)) model.preset = "";
  const auto& names = presets().at(model.trunk);
  const bool by_numbers = has_numbers && model.preset.empty();
  if (!by_numbers && !contains(names, model.preset)) {
    return r.complain(r.place("model.preset"), quote(model.preset),
                      fmt::format("{} where model.trunk = {}", quoted(names), quote(model.trunk)));
  }
  const auto value = [&](const std::string& path) {
    return write(find_key("model", path.substr(6))->field(r.config, 0));
  };
  if (!by_numbers) {
    const auto nonzero = [&](const std::string& path) {
      return value(path).find_first_not_of("0.") != std::string::npos;
    };
    const auto* const other = std::ranges::find_if(kNumbers, nonzero);
    if (!has_numbers || other == std::end(kNumbers)) return;  // check_idle() refuses those of other trunks
    return r.complain(r.place(*other), fmt::format("a number beside model.preset = {}", quote(model.preset)),
                      fmt::format("either a preset or, with preset = \"\", {}", kAll));
  }
  std::vector<std::string> missing;
  for (const std::string path : kNumbers)
    if (!is_set(path)) missing.push_back(path.substr(6));
  if (!missing.empty()) {
    return r.complain(r.place(is_set("model.preset") ? "model.preset" : *first),
                      fmt::format("a model without preset and without {}", fmt::join(missing, ", ")),
                      fmt::format("a preset, or {}", kAll));
  }
  const auto demand = [&](bool good, const std::string& path, const std::string& allowed) {
    if (!good) r.complain(r.place(path), value(path), allowed);
  };
  demand(model.depth >= 1, "model.depth", "an integer >= 1 where there is no preset");
  demand(model.w0 >= 8 && model.w0 % 8 == 0, "model.w0", "a multiple of 8");
  demand(model.wm > 1, "model.wm", "a number > 1 where there is no preset");
  demand(model.group_width >= 1, "model.group_width", "an integer >= 1 where there is no preset");
}

/// Where an evaluation falls may depend on the time it takes; where a run ends may not.
void check_watch(Reading& r) {
  const auto& watch = r.config.watch;
  if (watch.every == kWatchByCost && watch.patience > 0 && !r.failed.contains("watch.patience"))
    r.complain(r.place("watch.patience"), fmt::format("{} beside watch.every = \"auto\"", watch.patience),
               "0, or a number of updates for watch.every: the end of a run must not depend on its speed");
}

}  // namespace

void check_together(Reading& reading) {
  complete_overrides(reading);
  if (!reading.resolved) check_idle(reading);
  check_crops(reading);
  check_model(reading);
  check_watch(reading);
}

}  // namespace seer::config
