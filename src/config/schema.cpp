// SPDX-License-Identifier: Apache-2.0
// The table of all keys: type (from the member), allowed values, help. Defaults are the member initialisers of
// config.hpp, read from a default-constructed Config, so they are in one place.
#include "schema.hpp"

#include <regex>

#include "seer/base/names.hpp"

namespace seer::config {

std::optional<std::int64_t> walltime_seconds(const std::string& text) {
  if (text.empty() || text == "UNLIMITED" || text == "INFINITE") return 0;
  // d-hh[:mm[:ss]], hh:mm:ss, minutes[:ss]
  static const std::regex form(
      R"((?:(\d{1,4})-(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}))?)?)|(\d{1,4}):(\d{1,2}):(\d{1,2})|(\d{1,6})(?::(\d{1,2}))?)");
  std::smatch found;
  if (!std::regex_match(text, found, form)) return std::nullopt;
  constexpr std::int64_t kUnits[] = {86400, 3600, 60, 1, 3600, 60, 1, 60, 1};
  std::int64_t seconds = 0;
  for (std::size_t i = 0; i < std::size(kUnits); ++i)
    if (found[i + 1].matched) seconds += kUnits[i] * std::stoll(found[i + 1].str());
  return seconds;  // 0: no limit, as for Slurm
}

namespace {

const auto at_least = [](double low) { return Rule{.low = low}; };
const auto above = [](double low) { return Rule{.low = low, .open_low = true}; };
const auto between = [](double low, double high) { return Rule{.low = low, .high = high}; };

Rule one_of(std::vector<std::string> choices, std::vector<std::string> later = {}) {
  return {.choices = std::move(choices), .later = std::move(later)};
}
/// A list of `least` to `most` entries, each of which obeys `entry`.
Rule list(Rule entry, std::size_t least, std::size_t most = Rule().most_entries) {
  entry.least_entries = least;
  entry.most_entries = most;
  return entry;
}
Rule pair(Rule entry) {
  entry.ascending = true;
  return list(std::move(entry), 2, 2);
}
/// A path. Expands a leading ~ or ~user (in a list, after every comma). Refuses $NAME, which would become a folder.
Rule path(std::string form, bool may_be_empty, bool is_list = false) {
  const auto resolve = [may_be_empty, is_list](const std::string& text) -> std::optional<std::string> {
    if ((text.empty() && !may_be_empty) || names_variable(text)) return std::nullopt;
    std::string out;
    for (std::size_t begin = 0; begin <= text.size();) {
      const auto start = std::min(is_list ? text.find_first_not_of(' ', begin) : begin, text.size());
      const auto end = std::min(is_list ? text.find(',', start) : text.npos, text.size());
      const auto whole = expand_home(text.substr(start, end - start));
      if (!whole) return std::nullopt;
      out += text.substr(begin, start - begin) + *whole + (end < text.size() ? "," : "");
      begin = end + 1;
    }
    return out;
  };
  return {.form_of = resolve,
          .form = std::move(form) +
                  "; ~ and ~user become that user's home; $NAME is not replaced (let the shell do it: --set)"};
}
Rule walltime() {
  return {
      .form_of = [](const std::string& text) { return walltime_seconds(text) ? std::optional(text) : std::nullopt; },
      .form = "minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, as Slurm, or \"\" for no limit"};
}

/// Adds the rows of one section.
template <class S>
class Section {
 public:
  using Place = std::function<S&(Config&, std::size_t crop)>;
  /// `change`: what a changed value means for a resumed run, for keys that do not say otherwise.
  Section(std::vector<Key>& out, std::string name, Change change, Place place, std::string prefix = "")
      : out_(out), name_(std::move(name)), change_(change), place_(std::move(place)), prefix_(std::move(prefix)) {}
  Section(std::vector<Key>& out, std::string name, Change change, S Config::*place)
      : Section(out, std::move(name), change, [place](Config& c, std::size_t) -> S& { return c.*place; }) {}
  template <class T>
  Section& key(const char* name, T S::*member, Rule rule, const char* help, std::optional<Change> change = {}) {
    const auto field = [at = place_, member](Config& c, std::size_t crop) -> Field { return &(at(c, crop).*member); };
    out_.push_back({name_, prefix_ + name, field, std::move(rule), help, change.value_or(change_)});
    return *this;
  }

 private:
  std::vector<Key>& out_;
  std::string name_;
  Change change_;
  Place place_;
  std::string prefix_;
};

/// The keys of [augment] that a table of [[crops]] may override.
Section<Augment> augmentation(Section<Augment> section) {
  return section.key("flip_probability", &Augment::flip_probability, between(0, 1), "of mirroring left and right")
      .key("jitter_probability", &Augment::jitter_probability, between(0, 1), "of all four colour changes together")
      .key("brightness", &Augment::brightness, at_least(0), "factor from max(0, 1 - x) to 1 + x")
      .key("contrast", &Augment::contrast, at_least(0), "factor from max(0, 1 - x) to 1 + x")
      .key("saturation", &Augment::saturation, at_least(0), "factor from max(0, 1 - x) to 1 + x")
      .key("hue", &Augment::hue, between(0, 0.5), "shift from -x to x; 1 is a whole turn of the colour circle")
      .key("grey_probability", &Augment::grey_probability, between(0, 1), "of conversion to grey")
      .key("blur_probability", &Augment::blur_probability, between(0, 1), "of Gaussian blur")
      .key("blur_radius", &Augment::blur_radius, pair(between(0, 100)),
           "smallest and largest radius, in pixels of the crop")
      .key("aspect_ratio", &Augment::aspect_ratio, pair(above(0)), "smallest and largest width / height of a crop")
      .key("randaugment_ops", &Augment::randaugment_ops, between(0, 16), "operations of RandAugment; 0: none")
      .key("randaugment_magnitude", &Augment::randaugment_magnitude, between(0, 10), "of these operations")
      .key("randaugment_deviation", &Augment::randaugment_deviation, at_least(0), "standard deviation of the magnitude")
      .key("erase_probability", &Augment::erase_probability, between(0, 1), "of replacing a rectangle by noise");
}

std::vector<Key> make_keys() {
  std::vector<Key> k;
  constexpr double kMillion = 1e6;
  std::vector<std::string> trunks, preset_choices;
  for (const auto& [trunk, names] : presets()) {
    trunks.push_back(trunk);
    preset_choices.insert(preset_choices.end(), names.begin(), names.end());
  }
  preset_choices.emplace_back("");
  const auto regnety = [](Rule rule) {
    rule.trunks = {"regnety"};
    return rule;
  };
  Section(k, "model", Change::tensors, &Config::model)
      .key("trunk", &Model::trunk, one_of(trunks, {"vit"}), "family of the trunk")
      .key("preset", &Model::preset, one_of(preset_choices),
           "name of the trunk; \"\": the five numbers below describe it")
      .key("width_rule", &Model::width_rule, regnety(one_of({"pycls", "torchvision"})),
           "how widths are rounded to whole groups; the rules differ for 800mf, 4.0gf and 8gf")
      .key("depth", &Model::depth, regnety(between(0, 1000)), "number of blocks; 0 with a preset")
      .key("w0", &Model::w0, regnety(between(0, kMillion)), "width of the first stage before rounding, a multiple of 8")
      .key("wa", &Model::wa, regnety(at_least(0)), "slope of the widths")
      .key("wm", &Model::wm, regnety(at_least(0)), "factor between the widths of two stages, > 1")
      .key("group_width", &Model::group_width, regnety(between(0, kMillion)),
           "channels per group of the 3x3 convolutions")
      .key("stem", &Model::stem, {.choices = {"standard", "small"}, .trunks = {"resnet"}},
           "\"small\": a 3x3 convolution without stride and without pooling, for small images")
      .key("init_from", &Model::init_from, path("a path or \"\"", true),
           "weights file, checkpoint or run folder that a new run starts from; \"\": random", Change::free);
  Section(k, "method", Change::tensors, &Config::method)
      .key("kind", &Method::kind, one_of({"swav", "simclr", "byol", "supervised"}, {"dino", "sigreg", "visreg"}),
           "training method; its keys are in the section with its name, those of \"supervised\" in [finetune]");
  Section(k, "head", Change::tensors, &Config::head)
      .key("dims", &Head::dims, list(between(1, kMillion), 2),
           "widths of the projection head; the first must be the trunk's last width")
      .key("batchnorm", &Head::batchnorm, {}, "BatchNorm after every linear layer but the last")
      .key("prototypes", &Head::prototypes, {.low = 2, .high = 1e8}, "swav: number of prototypes");
  Section(k, "swav", Change::meaning, &Config::swav)
      .key("temperature", &Swav::temperature, above(0), "of the predicted distribution")
      .key("epsilon", &Swav::epsilon, above(0), "of the codes: smaller is sharper")
      .key("sinkhorn_iterations", &Swav::sinkhorn_iterations, between(1, 1000), "of the codes")
      .key("crops_for_assign", &Swav::crops_for_assign, list(at_least(0), 1),
           "numbers of the crops that codes are computed from; the first crop of the first [[crops]] is 0")
      .key("freeze_prototypes_updates", &Swav::freeze_prototypes_updates, at_least(0),
           "the prototypes do not change in this many first updates")
      .key("queue_length", &Swav::queue_length, at_least(0), "embeddings kept for the codes, over all ranks; 0: none")
      .key("queue_start_update", &Swav::queue_start_update, at_least(0), "first update that fills the queue");
  Section(k, "simclr", Change::meaning, &Config::simclr)
      .key("temperature", &Simclr::temperature, between(0.001, 1000), "of the similarities of embeddings");
  Section(k, "byol", Change::meaning, &Config::byol)
      .key("momentum", &Byol::momentum, between(0, 1),
           "of the teacher at the start of the run; rises to 1 along a cosine")
      .key("hidden", &Byol::hidden, between(1, 1e6), "width of the predictor's hidden layer", Change::tensors);
  Section(k, "finetune", Change::meaning, &Config::finetune)
      .key("from", &Finetune::from, path("a path or \"\"", true),
           "weights file, checkpoint or run folder to start from; \"\": random weights", Change::free)
      .key("classes", &Finetune::classes, between(0, 1e7), "0: as many as data.shards name", Change::tensors)
      .key("targets", &Finetune::targets, one_of({"single", "multi"}),
           "one class per image (softmax and cross-entropy) or any number (a sigmoid per class)")
      .key("classifier", &Finetune::classifier, one_of({"new", "keep"}),
           "starts at random, or as in `from`, which must have one for as many classes")
      .key("head_layers", &Finetune::head_layers, between(0, 100),
           "layers of the projection head in `from` that stay below the classifier; 0: it takes the pooled features",
           Change::tensors)
      .key("lr_trunk", &Finetune::lr_trunk, at_least(0), "highest learning rate of the trunk; 0: schedule.lr_peak")
      .key("lr_head", &Finetune::lr_head, at_least(0), "the same of everything above it")
      .key("decay_trunk", &Finetune::decay_trunk, at_least(-1), "weight decay of the trunk; -1: optimizer.weight_decay")
      .key("decay_head", &Finetune::decay_head, at_least(-1), "the same of everything above it")
      .key("decay_norm", &Finetune::decay_norm, {}, "weight decay also on BatchNorm's weights and biases")
      .key("freeze", &Finetune::freeze, {},
           "the trunk does not change up to this output (\"stem\", \"res2\", ...); \"trunk\": all of it; \"\": none")
      .key("freeze_updates", &Finetune::freeze_updates, at_least(0),
           "number of first updates in which that holds; 0: all")
      .key("batchnorm", &Finetune::batchnorm, one_of({"train", "frozen"}),
           "statistics of the batch (over parallel.bn_group_size ranks), or in the trunk the running ones of `from`, "
           "unchanged")
      .key("label_smoothing", &Finetune::label_smoothing, {.low = 0, .high = 1, .open_high = true},
           "part of the target that is spread over all classes")
      .key("mixup", &Finetune::mixup, at_least(0), "alpha of mixup's Beta distribution; 0: off")
      .key("cutmix", &Finetune::cutmix, at_least(0), "alpha of CutMix's Beta distribution; 0: off")
      .key("mix_probability", &Finetune::mix_probability, between(0, 1), "of mixing the images of a batch")
      .key("mix_switch", &Finetune::mix_switch, between(0, 1), "with mixup and CutMix: probability of CutMix")
      .key("ema", &Finetune::ema, {.low = 0, .high = 1, .open_high = true},
           "momentum of averaged weights, which are then the ones that are tested; 0: none", Change::tensors)
      .key("test_every", &Finetune::test_every, at_least(0),
           "updates between two tests on data.test_shards; 0: only at the end", Change::free)
      .key("test_resize", &Finetune::test_resize, between(1, 16384), "test: shorter side in pixels before the crop",
           Change::free)
      .key("test_crop", &Finetune::test_crop, between(8, 16384), "test: side of the centre crop in pixels",
           Change::free);
  Section(k, "continue", Change::meaning, &Config::continuing)
      .key("freeze_trunk_updates", &Continue::freeze_trunk_updates, at_least(0),
           "with model.init_from: number of first updates in which the trunk does not change")
      .key("ramp_updates", &Continue::ramp_updates, at_least(0),
           "number of updates after that in which the trunk's learning rate rises linearly from 0")
      .key("prototypes", &Continue::prototypes, one_of({"keep", "kmeans", "random"}),
           "swav: those of model.init_from if it has as many, k-means of the own images' embeddings, or random ones")
      .key("momenta", &Continue::momenta, {}, "takes over the optimizer's momenta, if model.init_from has any");
  Section<Crops>(k, "crops", Change::meaning, [](Config& c, std::size_t crop) -> Crops& { return c.crops.at(crop); })
      .key("count", &Crops::count, between(1, 1000), "crops of this kind per image")
      .key("size", &Crops::size, between(8, 16384), "side in pixels")
      .key("scale", &Crops::scale, pair({.low = 0, .high = 1, .open_low = true}),
           "smallest and largest part of the image's area");
  // Access gives the table its own augmentation.
  const auto own_augmentation = [](Config& c, std::size_t crop) -> Augment& {
    auto& own = c.crops.at(crop).augment;
    return own ? *own : own.emplace(c.augment);
  };
  augmentation({k, "crops", Change::meaning, own_augmentation, kOverride});
  augmentation({k, "augment", Change::meaning, &Config::augment})
      .key("mean", &Augment::mean, list({}, 3, 3), "subtracted from red, green, blue in [0, 1]")
      .key("std", &Augment::std, list(above(0), 3, 3), "divides red, green, blue");
  Section(k, "data", Change::free, &Config::data)
      .key("source", &Data::source, one_of({"shards", "crops"}), "\"crops\" feeds a file of ready crops (validation)",
           Change::meaning)
      .key("shards", &Data::shards, path("a string that is not empty", false, true),
           "folder, glob or list of shards; the crops file with source \"crops\"")
      .key("test_shards", &Data::test_shards, path("a path or \"\"", true, true),
           "supervised: labelled images to test on; folder, glob or list; \"\": none")
      .key("fraction", &Data::fraction, {.low = 0, .high = 1, .open_low = true},
           "supervised: part of each class's images to train on", Change::meaning)
      .key("per_class", &Data::per_class, at_least(0),
           "supervised: number of images of each class to train on; 0: fraction counts", Change::meaning)
      .key("subset_seed", &Data::subset_seed, at_least(0), "of the choice of these images", Change::meaning)
      .key("mode", &Data::mode, one_of({"fixed"}, {"stream"}), "a fixed set of images, or one that grows",
           Change::meaning)
      .key("global_batch", &Data::global_batch, between(1, 1e8), "images per update, over all ranks", Change::meaning)
      .key("bad_image_policy", &Data::bad_image_policy, one_of({"replace", "fail"}),
           "for an image that cannot be decoded: use another one, or stop")
      .key("seed", &Data::seed, at_least(0), "of order, crops and initialisation", Change::meaning)
      .key("block_images", &Data::block_images, at_least(1), "sampler: neighbouring images read together",
           Change::meaning)
      .key("window_blocks", &Data::window_blocks, at_least(1), "sampler: blocks shuffled together", Change::meaning)
      .key("prefetch_batches", &Data::prefetch_batches, between(1, 1000), "batches prepared ahead of the step")
      .key("reader_threads", &Data::reader_threads, between(0, 1024), "per rank; 0: chosen from the number of cores")
      .key("max_pixels", &Data::max_pixels, at_least(0),
           "larger images count as bad; 0: the limit in the shards, or 50000000 if they have none")
      .key("decode", &Data::decode, one_of({"host", "auto"}),
           "\"auto\": a device with nvJPEG decodes JPEG files; pixels differ by a few levels")
      .key("staging_pixels", &Data::staging_pixels, between(1, 1e9),
           "device: memory for each decoded image, in pixels; larger images are resized on the host. Host: `seer plan` "
           "assumes that the largest image has this size");
  Section(k, "optimizer", Change::meaning, &Config::optimizer)
      .key("kind", &Optimizer::kind, one_of({"lars", "sgd"}), "LARS (docs/method.md 5.1) or plain SGD")
      .key("momentum", &Optimizer::momentum, {.low = 0, .high = 1, .open_high = true}, "of the update")
      .key("nesterov", &Optimizer::nesterov, {}, "sgd: Nesterov's momentum")
      .key("weight_decay", &Optimizer::weight_decay, at_least(0), "on every parameter")
      .key("trust", &Optimizer::trust, above(0), "LARS: length of a step relative to the parameter");
  Section(k, "schedule", Change::meaning, &Config::schedule)
      .key("kind", &Schedule::kind, one_of({"cosine", "plateau", "multistep"}), "of the learning rate after warm-up")
      .key("warmup_updates", &Schedule::warmup_updates, at_least(0), "linear from lr_start to lr_peak")
      .key("lr_start", &Schedule::lr_start, at_least(0), "learning rate of update 0")
      .key("lr_peak", &Schedule::lr_peak, above(0),
           "highest learning rate; SEER uses 0.3 for every 256 images of the global batch")
      .key("lr_final", &Schedule::lr_final, at_least(0), "cosine: learning rate at the end")
      .key("total_updates", &Schedule::total_updates, at_least(1), "length of the run", Change::length)
      .key("epochs", &Schedule::epochs, at_least(0),
           "length of the run in passes over the data set; 0: total_updates counts", Change::length)
      .key("plateau_window", &Schedule::plateau_window, at_least(1), "plateau: updates over which the loss is smoothed")
      .key("plateau_threshold", &Schedule::plateau_threshold, at_least(0),
           "plateau: smallest relative decrease of the smoothed loss that counts as progress")
      .key("plateau_factor", &Schedule::plateau_factor, {.low = 0, .high = 1, .open_low = true, .open_high = true},
           "plateau: factor on the learning rate")
      .key("plateau_minimum", &Schedule::plateau_minimum, at_least(0), "plateau: lowest learning rate")
      .key("milestones", &Schedule::milestones, {.low = 1, .ascending = true}, "multistep: updates, ascending")
      .key("milestone_epochs", &Schedule::milestone_epochs, {.low = 0, .open_low = true, .ascending = true},
           "multistep: passes over the data set instead of milestones, ascending; needs schedule.epochs")
      .key("milestone_factor", &Schedule::milestone_factor, above(0),
           "multistep: factor on the learning rate at each milestone");
  Section(k, "precision", Change::meaning, &Config::precision)
      .key("compute", &Precision::compute, one_of({"fp32", "bf16", "fp16_o1", "auto"}),
           "type of convolutions, matrix products and the trunk's stored activations. auto: bf16 where all ranks have "
           "matrix units for it, else fp32; a run that goes on keeps what it began with")
      .key("loss_scale", &Precision::loss_scale, one_of({"auto", "none", "dynamic"}),
           "factor on the loss's gradient. dynamic: the largest without overflow; auto: dynamic for fp16_o1, else none")
      .key("reduce", &Precision::reduce, one_of({"fp32", "half"}),
           "type of gradients in messages between ranks. half: fp16 with compute = \"fp16_o1\", else bf16")
      .key("tf32", &Precision::tf32, {}, "fp32 on a device: products use tensor cores, which round operands to 10 bits")
      .key("float_weight_gradients", &Precision::float_weight_gradients, {},
           "half precision on a device: never rounds the gradients of convolution weights to 16 bits, as on the host");
  Section(k, "parallel", Change::free, &Config::parallel)
      .key("device", &Parallel::device, one_of({"auto", "host", "device"}),
           "where a rank computes. auto: on its device, if the rank and the build have one, else on the host")
      .key("deterministic", &Parallel::deterministic, {},
           "device: uses only engines that give the same bits every time; on the host all do")
      .key("bn_group_size", &Parallel::bn_group_size, at_least(1),
           "number of consecutive ranks that share BatchNorm statistics; all ranks if there are fewer")
      .key("shard", &Parallel::shard, one_of({"none", "optimizer", "gradients", "parameters"}),
           "what the ranks of a group share instead of each holding all. optimizer: momentum; gradients: also "
           "gradients; parameters: also parameters")
      .key("shard_group", &Parallel::shard_group, at_least(0),
           "number of consecutive ranks in such a group, for example those of a node; 0: all ranks")
      .key("overlap", &Parallel::overlap, {}, "a separate thread does sums and gathers during the computation")
      .key("recompute", &Parallel::recompute, one_of({"none", "cheap", "block", "auto"}),
           "what the backward pass computes again to save memory. cheap: BatchNorm, ReLU and gates; block: everything "
           "except a block's input; auto: as little as possible within memory_budget_bytes")
      .key("memory_budget_bytes", &Parallel::memory_budget_bytes, at_least(0),
           "recompute = \"auto\": limit for the memory of a rank; 0: all free memory")
      .key("bucket_bytes", &Parallel::bucket_bytes, at_least(1024), "size of the gradients that one message sums");
  Section(k, "guard", Change::free, &Config::guard)
      .key("max_skips_in_a_row", &Guard::max_skips_in_a_row, at_least(1),
           "after this many bad updates in a row, the run loads its last good checkpoint and skips those updates")
      .key("max_reloads", &Guard::max_reloads, at_least(0),
           "number of such reloads in a run; the next one ends it with exit code 4")
      .key("loss_z_score", &Guard::loss_z_score, at_least(0),
           "an update is bad if its loss is this many standard deviations above the mean; 0: every finite loss is good")
      .key("loss_window", &Guard::loss_window, at_least(2),
           "number of updates for this mean and deviation; the check begins after as many updates")
      .key("replay_every", &Guard::replay_every, at_least(0),
           "one update in this many does its passes twice, and both must give the same bits; 0: none")
      .key("replay_action", &Guard::replay_action, one_of({"stop", "warn"}),
           "if the bits differ. stop: ends with exit code 5; warn: skips the update and continues");
  Section(k, "checkpoint", Change::free, &Config::checkpoint)
      .key("every_updates", &Checkpoint::every_updates, {.low = 1, .word = "auto"},
           "updates between two checkpoints; \"auto\": computed from their cost and the failure rate of nodes")
      .key("mean_time_between_failures_hours", &Checkpoint::mean_time_between_failures_hours, above(0),
           "every_updates = \"auto\": for one node")
      .key("async", &Checkpoint::async, {}, "a separate thread writes checkpoints from a copy during the training")
      .key("local_dir", &Checkpoint::local_dir, path("a path or \"\"", true),
           "folder on each node's disk for further copies; %h: the node's name, %n: its number; \"\": none")
      .key("partner", &Checkpoint::partner, {},
           "local_dir also holds the copies of the previous node in a ring of nodes")
      .key("local_every_updates", &Checkpoint::local_every_updates, at_least(0),
           "updates between two copies in local_dir; 0: with every checkpoint")
      .key("keep_last", &Checkpoint::keep_last, at_least(1), "number of newest checkpoints to keep")
      .key("keep_every", &Checkpoint::keep_every, at_least(0),
           "checkpoints at multiples of this number of updates are never deleted; 0: none")
      .key(
          "max_failures", &Checkpoint::max_failures, at_least(0),
          "the run continues after this many failed saves in a row, and tries again at the next interval; 0: the first "
          "failed save ends it")
      .key("rehearse", &Checkpoint::rehearse, {}, "writes and reads a checkpoint at the first update of a run");
  Section(k, "watch", Change::free, &Config::watch)
      .key("every", &Watch::every, {.low = 0, .word = "auto", .word_value = kWatchByCost},
           "updates between two evaluations of the network; 0: none; \"auto\": as often as takes 3 % of the time")
      .key("train", &Watch::train, path("a path or \"\"", true, true),
           "labelled shards for k-NN and a linear probe; \"\": only figures without labels")
      .key("test", &Watch::test, path("a path or \"\"", true, true), "labelled shards to test them on")
      .key("images", &Watch::images, between(2, 1e7), "images of data.shards for the figures without labels")
      .key("resize", &Watch::resize, between(0, 16384), "shorter side in pixels; 0: the side of the first [[crops]]")
      .key("crop", &Watch::crop, between(0, 16384), "side of the centre crop in pixels; 0: of the first [[crops]]")
      .key("k", &Watch::k, at_least(1), "k-NN: number of neighbours")
      .key("keep_best", &Watch::keep_best, {}, "never deletes the checkpoint of the best evaluation")
      .key("patience", &Watch::patience, at_least(0),
           "stops the run after this many evaluations without an improvement; 0: never. Not with every = \"auto\"");
  Section(k, "log", Change::free, &Config::log)
      .key("run_dir", &Log::run_dir, path("a string that is not empty", false),
           "folder for all files that the run writes")
      .key("every", &Log::every, at_least(1), "updates between two logged updates")
      .key("hang_seconds", &Log::hang_seconds, at_least(0),
           "time without progress in an update that counts as a hang; 0: never")
      .key("hang_setup_seconds", &Log::hang_setup_seconds, at_least(0), "the same before the first update")
      .key("hang_checkpoint_seconds", &Log::hang_checkpoint_seconds, at_least(0),
           "the same while a checkpoint is written or the network evaluated")
      .key("walltime", &Log::walltime, walltime(),
           "writes a checkpoint and exits with code 75 after this time; the job's own limit must leave time for this")
      .key("tensorboard", &Log::tensorboard, {}, "also writes event files for TensorBoard");
  Section(k, "faults", Change::free, &Config::faults)
      .key("nan_updates", &Faults::nan_updates, at_least(1),
           "for tests: updates, numbered as in metrics.jsonl, in which a gradient of one rank becomes NaN")
      .key("nan_rank", &Faults::nan_rank, at_least(0), "number of this rank, modulo the number of ranks")
      .key("flip_update", &Faults::flip_update, at_least(0),
           "for tests: in the second pass of this update (guard.replay_every), a bit of a gradient of one rank flips; "
           "0: none")
      .key("flip_rank", &Faults::flip_rank, at_least(0), "number of this rank, modulo the number of ranks");
  return k;
}

}  // namespace

const std::map<std::string, std::vector<std::string>>& presets() {
  static const std::map<std::string, std::vector<std::string>> all = {
      {"regnety",
       {"tiny", "200mf", "400mf", "600mf", "800mf", "1.6gf", "3.2gf", "4.0gf", "6.4gf", "8gf", "12gf", "16gf", "32gf",
        "64gf", "128gf", "256gf", "10b"}},
      {"resnet", {"18", "34", "50", "101", "152", "x50_32x4d", "x101_32x8d", "x101_32x16d", "x101_64x4d"}}};
  return all;
}

const std::vector<Key>& keys() {
  static const std::vector<Key> table = make_keys();
  return table;
}

}  // namespace seer::config
