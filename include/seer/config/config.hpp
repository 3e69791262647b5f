// SPDX-License-Identifier: Apache-2.0
// The configuration as plain structs, one per section (docs/configuration.md), and what is done with it. The member
// initialisers here are the defaults. The allowed values and the help of every key are in src/config/schema.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/error.hpp"

namespace seer::config {

struct Model {
  std::string trunk = "regnety";
  std::string preset = "256gf";  ///< or "", with the five numbers below
  std::string width_rule = "pycls";
  std::string stem = "standard";
  std::int64_t depth = 0;
  std::int64_t w0 = 0;
  double wa = 0, wm = 0;
  std::int64_t group_width = 0;
  std::string init_from;
  bool operator==(const Model&) const = default;
};
struct Method {
  std::string kind = "swav";
  bool operator==(const Method&) const = default;
};
struct Head {
  std::vector<std::int64_t> dims = {10444, 8192, 8192, 256};
  bool batchnorm = false;
  std::int64_t prototypes = 16000;
  bool operator==(const Head&) const = default;
};
struct Swav {
  double temperature = 0.1;
  double epsilon = 0.05;
  std::int64_t sinkhorn_iterations = 10;
  std::vector<std::int64_t> crops_for_assign = {0, 1};
  std::int64_t freeze_prototypes_updates = 313;
  std::int64_t queue_length = 0;
  std::int64_t queue_start_update = 0;
  bool operator==(const Swav&) const = default;
};
struct Simclr {
  double temperature = 0.1;
  bool operator==(const Simclr&) const = default;
};
struct Byol {
  double momentum = 0.996;
  std::int64_t hidden = 4096;
  bool operator==(const Byol&) const = default;
};
/// Classification with labels: fine-tuning, or training from random weights. Keys of method.kind = "supervised".
struct Finetune {
  std::string from;                  ///< weights to start from; "": random
  std::int64_t classes = 0;          ///< 0: as many as data.shards name
  std::string targets = "single";    ///< one class per image (softmax), or several ("multi": one sigmoid per class)
  std::string classifier = "new";    ///< or "keep": that of `from`
  std::int64_t head_layers = 0;      ///< layers of the pre-trained projection head to keep below the classifier
  double lr_trunk = 0, lr_head = 0;  ///< peak learning rates; 0: schedule.lr_peak
  double decay_trunk = -1, decay_head = -1;  ///< weight decay; -1: optimizer.weight_decay
  bool decay_norm = false;                   ///< weight decay also on BatchNorm's weights and biases
  std::string freeze;                        ///< last tap of the trunk that does not train; "": none, "trunk": all
  std::int64_t freeze_updates = 0;           ///< number of first updates with frozen parts; 0: all
  std::string batchnorm = "train";           ///< or "frozen": running statistics, which stay as they are
  double label_smoothing = 0;
  double mixup = 0, cutmix = 0;                     ///< alpha of their Beta distributions; 0: off
  double mix_probability = 1;                       ///< of mixing a batch
  double mix_switch = 0.5;                          ///< if both are on: probability of cutmix
  double ema = 0;                                   ///< momentum of averaged weights, which are tested; 0: none
  std::int64_t test_every = 0;                      ///< updates between tests; 0: only at the end
  std::int64_t test_resize = 256, test_crop = 224;  ///< pixels
  bool operator==(const Finetune&) const = default;
};
/// Pre-training on other data than the weights of model.init_from.
struct Continue {
  std::int64_t freeze_trunk_updates = 0;  ///< number of first updates in which the trunk does not change
  std::int64_t ramp_updates = 0;          ///< updates after that in which its learning rate rises from 0
  std::string prototypes = "keep";        ///< or "kmeans", "random"
  bool momenta = true;                    ///< takes over the optimizer's momenta, if there are any
  bool operator==(const Continue&) const = default;
};
/// What a run tells about itself besides the loss.
inline constexpr std::int64_t kWatchByCost = -1;  ///< watch.every = "auto": the interval follows from the cost
struct Watch {
  std::int64_t every = 0;             ///< updates between two evaluations; 0: none
  std::string train, test;            ///< labelled shards for k-NN and a probe; "": none
  std::int64_t images = 2048;         ///< images of data.shards for the figures without labels
  std::int64_t resize = 0, crop = 0;  ///< pixels; 0: from the first [[crops]]
  std::int64_t k = 20;
  bool keep_best = true;      ///< keeps the checkpoint with the best result
  std::int64_t patience = 0;  ///< evaluations without improvement after which the run stops; 0: never
  bool operator==(const Watch&) const = default;
};
struct Augment {
  double flip_probability = 0.5;
  double jitter_probability = 0.8;
  double brightness = 0.8, contrast = 0.8, saturation = 0.8, hue = 0.2;
  double grey_probability = 0.2;
  double blur_probability = 0.5;
  std::vector<double> blur_radius = {0.1, 2.0};
  std::vector<double> aspect_ratio = {0.75, 4.0 / 3.0};
  std::int64_t randaugment_ops = 0;    ///< operations of RandAugment per crop
  double randaugment_magnitude = 9;    ///< of 10
  double randaugment_deviation = 0.5;  ///< standard deviation of the magnitude
  double erase_probability = 0;        ///< of replacing a rectangle by noise
  std::vector<double> mean = {0.485, 0.456, 0.406};
  std::vector<double> std = {0.229, 0.224, 0.225};
  bool operator==(const Augment&) const = default;
};
struct Crops {
  std::int64_t count = 2;
  std::int64_t size = 224;
  std::vector<double> scale = {0.14, 1.0};
  std::optional<Augment> augment = std::nullopt;  ///< replaces [augment]; mean and std always come from [augment]
  bool operator==(const Crops&) const = default;
};
struct Data {
  std::string source = "shards";
  std::string shards = "shards/*.h5";
  std::string test_shards;     ///< labelled images to test on
  double fraction = 1;         ///< part of the labelled images to train on
  std::int64_t per_class = 0;  ///< images of each class to train on; 0: fraction counts
  std::int64_t subset_seed = 0;
  std::string mode = "fixed";
  std::int64_t global_batch = 8192;
  std::string bad_image_policy = "replace";
  std::int64_t seed = 0;
  std::int64_t block_images = 1024;  ///< sampler: images per block
  std::int64_t window_blocks = 16;   ///< sampler: blocks shuffled together
  std::int64_t prefetch_batches = 2;
  std::int64_t reader_threads = 0;  ///< 0: chosen from the number of cores
  std::int64_t max_pixels = 0;      ///< 0: the limit that the shards were packed with
  std::string decode = "host";
  std::int64_t staging_pixels = 1048576;  ///< device: room per decoded image, in pixels; host: largest image in plans
  bool operator==(const Data&) const = default;
};
struct Optimizer {
  std::string kind = "lars";
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 1e-5;
  double trust = 0.001;
  bool operator==(const Optimizer&) const = default;
};
struct Schedule {
  std::string kind = "cosine";
  std::int64_t warmup_updates = 8000;
  double lr_start = 0.15;
  double lr_peak = 9.6;
  double lr_final = 0.0096;
  std::int64_t total_updates = 122070;
  double epochs = 0;  ///< > 0: total_updates is computed from the data set
  std::int64_t plateau_window = 1000;
  double plateau_threshold = 0.001;
  double plateau_factor = 0.5;
  double plateau_minimum = 0.0096;
  std::vector<std::int64_t> milestones;
  std::vector<double> milestone_epochs;  ///< instead of milestones, with epochs
  double milestone_factor = 0.1;
  bool operator==(const Schedule&) const = default;
};
struct Precision {
  std::string compute = "fp32";
  std::string loss_scale = "auto";
  std::string reduce = "fp32";
  bool tf32 = false;
  bool float_weight_gradients = false;
  bool operator==(const Precision&) const = default;
};
struct Parallel {
  std::string device = "auto";
  bool deterministic = false;
  std::int64_t bn_group_size = 64;
  std::string shard = "none";
  std::int64_t shard_group = 0;  ///< 0: all ranks
  bool overlap = true;
  std::string recompute = "none";
  std::int64_t memory_budget_bytes = 0;
  std::int64_t bucket_bytes = 33554432;
  bool operator==(const Parallel&) const = default;
};
struct Guard {
  std::int64_t max_skips_in_a_row = 3;
  std::int64_t max_reloads = 3;
  double loss_z_score = 0;         ///< 0: off
  std::int64_t loss_window = 100;  ///< updates
  std::int64_t replay_every = 0;   ///< 0: off
  std::string replay_action = "stop";
  bool operator==(const Guard&) const = default;
};
struct Checkpoint {
  std::int64_t every_updates = 1000;               ///< 0: "auto", from the cost of a save and the failure rate of nodes
  double mean_time_between_failures_hours = 6300;  ///< per node
  bool async = true;
  std::string local_dir;
  bool partner = true;
  std::int64_t local_every_updates = 0;  ///< 0: with every checkpoint
  std::int64_t keep_last = 3;
  std::int64_t keep_every = 0;
  std::int64_t max_failures = 5;  ///< consecutive failed saves that a run survives
  bool rehearse = true;
  bool operator==(const Checkpoint&) const = default;
};
struct Log {
  std::string run_dir = "runs/seer";
  std::int64_t every = 10;
  std::int64_t hang_seconds = 300;
  std::int64_t hang_setup_seconds = 1800;
  std::int64_t hang_checkpoint_seconds = 1800;
  std::string walltime;
  bool tensorboard = true;
  bool operator==(const Log&) const = default;
};
struct Faults {
  std::vector<std::int64_t> nan_updates;
  std::int64_t nan_rank = 0;
  std::int64_t flip_update = 0;  ///< 0: none
  std::int64_t flip_rank = 0;
  bool operator==(const Faults&) const = default;
};

struct Config {
  Model model;
  Method method;
  Head head;
  Swav swav;
  Simclr simclr;
  Byol byol;
  Finetune finetune;
  Continue continuing;
  std::vector<Crops> crops = {{2, 224, {0.14, 1.0}}, {4, 96, {0.05, 0.14}}};
  Augment augment;
  Data data;
  Optimizer optimizer;
  Schedule schedule;
  Precision precision;
  Parallel parallel;
  Guard guard;
  Checkpoint checkpoint;
  Watch watch;
  Log log;
  Faults faults;
  bool operator==(const Config&) const = default;
};

/// Calls visit(name, member) for each key that describes the network's tensors: the one list for files and messages.
void visit_architecture(auto& model, auto& head, const auto& visit) {
  visit("trunk", model.trunk);
  visit("preset", model.preset);
  visit("width_rule", model.width_rule);
  visit("stem", model.stem);
  visit("depth", model.depth);
  visit("w0", model.w0);
  visit("wa", model.wa);
  visit("wm", model.wm);
  visit("group_width", model.group_width);
  visit("head_dims", head.dims);
  visit("head_batchnorm", head.batchnorm);
  visit("prototypes", head.prototypes);
}

/// Reads a file ("" = defaults only) and "section.key=value" overrides. Reports all errors of file and overrides
/// together: Error(input) has one line for each: file:line: key: what was found, what is allowed, nearest known key.
Config load(const std::string& path, const std::vector<std::string>& overrides);
/// The same from text. Messages show `name` as the file.
Config parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides);
/// Parses a configuration that to_toml() wrote, perhaps on another machine or in an earlier version. Paths stay as they
/// are, and keys without effect are not errors.
Config parse_resolved(const std::string& text, const std::string& name);

/// Complete TOML of a configuration: load(to_toml(c)) == c.
std::string to_toml(const Config& config);
/// A table for people: key, value, and a mark if it differs from the default. `changed`: only those rows.
enum class Rows { changed, all };
std::string to_table(const Config& config, Rows rows = Rows::all);
/// Converts log.walltime to seconds: 0 for "", nothing if the text has none of Slurm's forms.
std::optional<std::int64_t> walltime_seconds(const std::string& text);
/// Every key with type, default, range and help (docs and `seer pretrain --help-config`).
std::string describe_keys();

// A configuration and that of the checkpoint that a run resumes from. -------------------------------------------------
/// What a changed value of a key means for a resumed run. The table of keys sets it for each key.
enum class Change {
  free,     ///< the same run, with other paths, ranks, memory, logs or monitoring
  meaning,  ///< a different run: loss, images, step
  tensors,  ///< a different run with other parameters, so that no checkpoint fits
  length,   ///< another number of updates, which changes the learning rate
};

struct Difference {
  std::string key, was, is;  ///< values as TOML; "nothing" if that side lacks this table of [[crops]]
  Change change;
};

struct Comparison {
  std::vector<Difference> differences;  ///< of keys that the new configuration uses, in the order of the keys
  /// "section.key = value" for each key that only one side's version knows. For keys unknown to the stored version,
  /// only values that differ from the default: the default stands for the behaviour before the key existed.
  std::vector<std::string> unknown;
  std::optional<Config> stored;  ///< nothing if this version refuses its values
};

/// `stored`: text that to_toml() of this or another version wrote.
Comparison compare(const std::string& stored, const Config& now);

/// True if `name` is the key or a group that holds it: "crops.0.size" is covered by itself, "crops.0" and "crops".
inline bool covers(const std::string& name, const std::string& key) {
  return key == name || key.starts_with(name + ".");
}
/// Error(input), agreed, with the nearest name if no key or section has this name. Its message begins with `option`.
void require_name(const std::string& name, const std::string& option);

// For words that are not known: the word that was meant, or all words that are. ---------------------------------------
/// The candidate with the smallest edit distance; "" if there are no candidates.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);
/// Edit distance: insertions, deletions, substitutions and swaps of neighbours.
std::size_t edit_distance(const std::string& a, const std::string& b);
/// Error(input), agreed: "KEY = "VALUE" is not known", and what is.
Error unknown(const std::string& key, const std::string& value, const std::vector<std::string>& known);

}  // namespace seer::config
