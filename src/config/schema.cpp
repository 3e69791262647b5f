// SPDX-License-Identifier: Apache-2.0
// The table of all keys: type (from the member), allowed values, help. Defaults are the member initialisers of
// config.hpp, read from a default-constructed Config, so they are in one place.
#include "schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "seer/base/home.hpp"

namespace seer::config {
namespace {

Rule any() {
  return {};
}
Rule at_least(double low) {
  return {.low = low};
}
Rule at_least_or(double low, std::string zero_word) {
  return {.low = low, .zero_word = std::move(zero_word)};
}
Rule above(double low) {
  return {.low = low, .open_low = true};
}
Rule between(double low, double high) {
  return {.low = low, .high = high};
}
Rule above_to(double low, double high) {
  return {.low = low, .high = high, .open_low = true};
}
Rule inside(double low, double high) {
  return {.low = low, .high = high, .open_low = true, .open_high = true};
}
Rule one_of(std::vector<std::string> choices, std::vector<std::string> later = {}) {
  return {.choices = std::move(choices), .later = std::move(later)};
}
/// A list of `least` to `most` entries, each of which obeys `entry`.
Rule list(Rule entry, std::size_t least, std::size_t most = std::numeric_limits<std::size_t>::max()) {
  entry.least_entries = least;
  entry.most_entries = most;
  return entry;
}
Rule pair(Rule entry) {
  entry.ascending = true;
  return list(std::move(entry), 2, 2);
}
/// Files and folders. Expands a leading ~ or ~user (in a list, after every comma). Refuses a $ before a name, because
/// it would create a folder of that name.
Rule path(std::string form, bool may_be_empty, bool is_list = false) {
  const auto resolve = [may_be_empty, is_list](const std::string& text) -> std::optional<std::string> {
    if (text.empty() && !may_be_empty) return std::nullopt;
    if (names_variable(text)) return std::nullopt;
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
                  "; ~ and ~user become that user's home, $NAME is not replaced (let the shell do it: "
                  "--set)"};
}
Rule walltime() {
  const auto check = [](const std::string& text) {
    return walltime_seconds(text) ? std::optional(text) : std::nullopt;
  };
  return {.form_of = check,
          .form = "minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, as Slurm, or \"\" for no limit"};
}

/// Adds the rows of one section.
template <class S>
class Section {
 public:
  /// `change`: what a changed value means for a resumed run, for keys that do not say otherwise.
  Section(std::vector<Key>& out, std::string name, S Config::*place, Change change)
      : out_(out), name_(std::move(name)), place_(place), change_(change) {}
  template <class T>
  Section& key(const char* name, T S::*member, Rule rule, const char* help, std::optional<Change> change = {}) {
    out_.push_back({name_, name, [at = place_, member](Config& c, std::size_t) -> Field { return &(c.*at.*member); },
                    std::move(rule), help, change.value_or(change_)});
    return *this;
  }

 private:
  std::vector<Key>& out_;
  std::string name_;
  S Config::*place_;
  Change change_;
};

template <class T>
Key crop_key(const char* name, T Crops::*member, Rule rule, const char* help) {
  return {"crops",         name, [member](Config& c, std::size_t crop) -> Field { return &(c.crops.at(crop).*member); },
          std::move(rule), help, Change::meaning};
}

/// The same key in one [[crops]] table. Accessing it gives the table its own augmentation.
template <class T>
Key override_key(const char* name, T Augment::*member, Rule rule, const char* help) {
  const auto field = [member](Config& c, std::size_t crop) -> Field {
    auto& own = c.crops.at(crop).augment;
    if (!own) own = c.augment;
    return &((*own).*member);
  };
  return {"crops", std::string(kOverride) + name, field, std::move(rule), help, Change::meaning};
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
  const auto resnet = [](Rule rule) {
    rule.trunks = {"resnet"};
    return rule;
  };
  Section(k, "model", &Config::model, Change::tensors)
      .key("trunk", &Model::trunk, one_of(trunks, {"vit"}), "family of the trunk")
      .key("preset", &Model::preset, one_of(preset_choices), "the trunk by name; \"\" with the five numbers below")
      .key("width_rule", &Model::width_rule, regnety(one_of({"pycls", "torchvision"})),
           "how widths are made to fit groups: differs for 800mf, 4.0gf and 8gf")
      .key("depth", &Model::depth, regnety(between(0, 1000)), "blocks in all; 0 with a preset")
      .key("w0", &Model::w0, regnety(between(0, kMillion)), "width of the first stage before fitting, a multiple of 8")
      .key("wa", &Model::wa, regnety(at_least(0)), "slope of the widths")
      .key("wm", &Model::wm, regnety(at_least(0)), "factor between the widths of two stages, > 1")
      .key("group_width", &Model::group_width, regnety(between(0, kMillion)),
           "channels a group of the 3x3 convolutions")
      .key("stem", &Model::stem, resnet(one_of({"standard", "small"})),
           "\"small\": a 3x3 convolution without stride and without pooling, for small images")
      .key("init_from", &Model::init_from, path("a path or \"\"", true),
           "weights file, checkpoint or run folder that a new run starts from; \"\": random", Change::free);
  Section(k, "method", &Config::method, Change::tensors)
      .key("kind", &Method::kind, one_of({"swav", "simclr", "byol"}, {"dino", "sigreg", "visreg", "supervised"}),
           "training method, whose keys stand in the section of its name");
  Section(k, "head", &Config::head, Change::tensors)
      .key("dims", &Head::dims, list(between(1, kMillion), 2),
           "widths of the projection head; the first is the trunk's last width")
      .key("batchnorm", &Head::batchnorm, any(), "BatchNorm after every linear layer but the last")
      .key("prototypes", &Head::prototypes, between(2, 1e8), "number of prototypes");
  Section(k, "swav", &Config::swav, Change::meaning)
      .key("temperature", &Swav::temperature, above(0), "of the predicted distribution")
      .key("epsilon", &Swav::epsilon, above(0), "of the codes: smaller is sharper")
      .key("sinkhorn_iterations", &Swav::sinkhorn_iterations, between(1, 1000), "of the codes")
      .key("crops_for_assign", &Swav::crops_for_assign, list(at_least(0), 1),
           "crops that codes are computed from, counted over all [[crops]]")
      .key("freeze_prototypes_updates", &Swav::freeze_prototypes_updates, at_least(0),
           "first updates in which the prototypes stay as they are")
      .key("queue_length", &Swav::queue_length, at_least(0), "embeddings kept for the codes, over all ranks; 0: none")
      .key("queue_start_update", &Swav::queue_start_update, at_least(0), "first update that fills the queue");
  Section(k, "simclr", &Config::simclr, Change::meaning)
      .key("temperature", &Simclr::temperature, between(0.001, 1000), "of the similarities of embeddings");
  Section(k, "byol", &Config::byol, Change::meaning)
      .key("momentum", &Byol::momentum, between(0, 1),
           "of the teacher at the begin of the run; it rises to 1 as a cosine")
      .key("hidden", &Byol::hidden, between(1, 1e6), "width of the predictor's hidden layer", Change::tensors);
  k.push_back(crop_key("count", &Crops::count, between(1, 1000), "crops of this kind an image"));
  k.push_back(crop_key("size", &Crops::size, between(8, 16384), "side in pixels"));
  k.push_back(crop_key("scale", &Crops::scale, pair(above_to(0, 1)), "least and greatest part of the image's area"));
  std::vector<Key> augment;  // listed after the keys of [[crops]] that override them
  Section augment_section(augment, "augment", &Config::augment, Change::meaning);
  const auto both = [&](const char* name, auto member, const Rule& rule, const char* help) {
    k.push_back(override_key(name, member, rule, help));
    augment_section.key(name, member, rule, help);
  };
  both("flip_probability", &Augment::flip_probability, between(0, 1), "of mirroring left and right");
  both("jitter_probability", &Augment::jitter_probability, between(0, 1), "of the four colour changes together");
  both("brightness", &Augment::brightness, at_least(0), "factor from max(0, 1 - x) to 1 + x");
  both("contrast", &Augment::contrast, at_least(0), "factor from max(0, 1 - x) to 1 + x");
  both("saturation", &Augment::saturation, at_least(0), "factor from max(0, 1 - x) to 1 + x");
  both("hue", &Augment::hue, between(0, 0.5), "shift from -x to x, in turns of the colour circle");
  both("grey_probability", &Augment::grey_probability, between(0, 1), "of turning grey");
  both("blur_probability", &Augment::blur_probability, between(0, 1), "of Gaussian blur");
  both("blur_radius", &Augment::blur_radius, pair(between(0, 100)), "least and greatest radius, pixels of the crop");
  both("aspect_ratio", &Augment::aspect_ratio, pair(above(0)), "least and greatest width / height of a crop");
  augment_section.key("mean", &Augment::mean, list(any(), 3, 3), "subtracted from red, green, blue in [0, 1]")
      .key("std", &Augment::std, list(above(0), 3, 3), "divides red, green, blue");
  k.insert(k.end(), augment.begin(), augment.end());
  Section(k, "data", &Config::data, Change::free)
      .key("source", &Data::source, one_of({"shards", "crops"}), "\"crops\" feeds a file of ready crops (validation)",
           Change::meaning)
      .key("shards", &Data::shards, path("a string that is not empty", false, true),
           "folder, glob or list of shards; the crops file with source \"crops\"")
      .key("mode", &Data::mode, one_of({"fixed"}, {"stream"}), "a fixed set of images, or one that grows",
           Change::meaning)
      .key("global_batch", &Data::global_batch, between(1, 1e8), "images an update, over all ranks", Change::meaning)
      .key("bad_image_policy", &Data::bad_image_policy, one_of({"replace", "fail"}),
           "an image that does not decode: take another valid one, or stop")
      .key("seed", &Data::seed, at_least(0), "of order, crops and initialisation", Change::meaning)
      .key("block_images", &Data::block_images, at_least(1), "sampler: neighbouring images read together",
           Change::meaning)
      .key("window_blocks", &Data::window_blocks, at_least(1), "sampler: blocks shuffled together", Change::meaning)
      .key("prefetch_batches", &Data::prefetch_batches, between(1, 1000), "batches prepared ahead of the step")
      .key("reader_threads", &Data::reader_threads, between(0, 1024), "a rank; 0: chosen from the cores")
      .key("max_pixels", &Data::max_pixels, at_least(0),
           "larger images count as bad; 0: the limit that the shards were packed with (50000000 where they tell none)")
      .key("decode", &Data::decode, one_of({"host", "auto"}),
           "\"auto\": a device with nvJPEG decodes JPEG files; pixels differ by a few levels")
      .key("staging_pixels", &Data::staging_pixels, between(1, 1e9),
           "pixels of device memory for each decoded image; larger images are resized on the host; on a host, `seer "
           "plan` "
           "takes it as the size of the largest image");
  Section(k, "optimizer", &Config::optimizer, Change::meaning)
      .key("kind", &Optimizer::kind, one_of({"lars", "sgd"}), "LARS (docs/method.md 5.1) or plain SGD")
      .key("momentum", &Optimizer::momentum, Rule{.low = 0, .high = 1, .open_high = true}, "of the update")
      .key("weight_decay", &Optimizer::weight_decay, at_least(0), "on every parameter")
      .key("trust", &Optimizer::trust, above(0), "LARS: length of a step relative to the parameter");
  Section(k, "schedule", &Config::schedule, Change::meaning)
      .key("kind", &Schedule::kind, one_of({"cosine", "plateau", "multistep"}), "of the learning rate after warm-up")
      .key("warmup_updates", &Schedule::warmup_updates, at_least(0), "linear from lr_start to lr_peak")
      .key("lr_start", &Schedule::lr_start, at_least(0), "learning rate of update 0")
      .key("lr_peak", &Schedule::lr_peak, above(0), "0.3 for every 256 images of the global batch, as SEER")
      .key("lr_final", &Schedule::lr_final, at_least(0), "cosine: learning rate at the end")
      .key("total_updates", &Schedule::total_updates, at_least(1), "length of the run", Change::length)
      .key("epochs", &Schedule::epochs, at_least(0), "> 0: length of the run in passes over the data set instead",
           Change::length)
      .key("plateau_window", &Schedule::plateau_window, at_least(1), "plateau: updates over which the loss is smoothed")
      .key("plateau_threshold", &Schedule::plateau_threshold, at_least(0),
           "plateau: relative decrease of the smoothed loss that counts")
      .key("plateau_factor", &Schedule::plateau_factor, inside(0, 1), "plateau: multiplies the learning rate")
      .key("plateau_minimum", &Schedule::plateau_minimum, at_least(0), "plateau: least learning rate")
      .key("milestones", &Schedule::milestones, Rule{.low = 1, .ascending = true}, "multistep: updates, ascending")
      .key("milestone_factor", &Schedule::milestone_factor, above(0), "multistep: multiplies the learning rate");
  Section(k, "precision", &Config::precision, Change::meaning)
      .key("compute", &Precision::compute, one_of({"fp32", "bf16", "fp16_o1"}),
           "of convolutions and products, and what the trunk's activations are kept in")
      .key("loss_scale", &Precision::loss_scale, one_of({"auto", "none", "dynamic"}),
           "of the loss's gradient; dynamic: as large as does not overflow; auto: dynamic for fp16_o1, else none")
      .key("reduce", &Precision::reduce, one_of({"fp32", "half"}),
           "in which gradients travel to be summed over ranks; half: 16 bits, fp16 with compute fp16_o1, else bf16")
      .key("tf32", &Precision::tf32, any(), "fp32 on a device: products on tensor cores, operands rounded to 10 bits")
      .key("float_weight_gradients", &Precision::float_weight_gradients, any(),
           "half precision on a device: gradients of convolutions' weights are never rounded to 16 bits, as on the "
           "host");
  Section(k, "parallel", &Config::parallel, Change::free)
      .key("device", &Parallel::device, one_of({"auto", "host", "device"}),
           "where a rank computes; auto: on its device where there is one and the build is for it, else on the host")
      .key("deterministic", &Parallel::deterministic, any(),
           "on a device: only engines that give the same bits every time; on the host all do")
      .key("bn_group_size", &Parallel::bn_group_size, at_least(1),
           "consecutive ranks that share BatchNorm statistics; more than there are: all")
      .key("shard", &Parallel::shard, one_of({"none", "optimizer", "gradients", "parameters"}),
           "what is split over the ranks of a group instead of held by each: momentum; and gradients; and parameters")
      .key("shard_group", &Parallel::shard_group, at_least(0),
           "consecutive ranks that split it, such as those of a node; groups are replicas; 0: all ranks")
      .key("overlap", &Parallel::overlap, any(), "sums and gathers run in a thread beside the computation")
      .key("recompute", &Parallel::recompute, one_of({"none", "cheap", "block", "auto"}),
           "what the backward pass computes again instead of keeping: cheap: BatchNorm, ReLU and gates; block: all but "
           "a block's input; auto: as little as fits memory_budget_bytes")
      .key("memory_budget_bytes", &Parallel::memory_budget_bytes, at_least(0),
           "limit of a rank's whole memory, for recompute = \"auto\"; 0: all the memory that is free")
      .key("bucket_bytes", &Parallel::bucket_bytes, at_least(1024), "gradients summed in one message");
  Section(k, "guard", &Config::guard, Change::free)
      .key("max_skips_in_a_row", &Guard::max_skips_in_a_row, at_least(1),
           "after so many bad updates in a row the last good checkpoint is loaded, and the run goes on past them")
      .key("max_reloads", &Guard::max_reloads, at_least(0), "of a run; when another is wanted it ends with exit code 4")
      .key("loss_z_score", &Guard::loss_z_score, at_least(0),
           "an update is bad whose loss is above the mean by so many standard deviations; 0: any finite loss will do")
      .key("loss_window", &Guard::loss_window, at_least(2),
           "updates over which that mean and deviation are taken, and after which the first is judged")
      .key("replay_every", &Guard::replay_every, at_least(0),
           "every so many updates forward and backward pass are done twice and must give the same bits; 0: never")
      .key("replay_action", &Guard::replay_action, one_of({"stop", "warn"}),
           "where they do not: end with exit code 5, or leave the update out and go on");
  Section(k, "checkpoint", &Config::checkpoint, Change::free)
      .key("every_updates", &Checkpoint::every_updates, at_least_or(1, "auto"),
           "updates between two checkpoints; \"auto\": the best for what one costs and how often nodes fail")
      .key("mean_time_between_failures_hours", &Checkpoint::mean_time_between_failures_hours, above(0),
           "of one node, for every_updates = \"auto\"")
      .key("async", &Checkpoint::async, any(), "write beside the training, from a copy")
      .key("local_dir", &Checkpoint::local_dir, path("a path or \"\"", true),
           "folder on every node's own disk for further copies; %h: its name, %n: its number; \"\": none")
      .key("partner", &Checkpoint::partner, any(), "local_dir also holds what the node before it in the ring saved")
      .key("local_every_updates", &Checkpoint::local_every_updates, at_least(0),
           "updates between two copies in local_dir; 0: with every checkpoint")
      .key("keep_last", &Checkpoint::keep_last, at_least(1), "newest checkpoints kept")
      .key("keep_every", &Checkpoint::keep_every, at_least(0), "kept for good: every so many updates; 0: none")
      .key("max_failures", &Checkpoint::max_failures, at_least(0),
           "saves that may fail in a row: the run goes on and tries again at the next interval; 0: the first one ends "
           "it")
      .key("rehearse", &Checkpoint::rehearse, any(), "write and read one at the first update of a run");
  Section(k, "log", &Config::log, Change::free)
      .key("run_dir", &Log::run_dir, path("a string that is not empty", false), "folder of everything the run writes")
      .key("every", &Log::every, at_least(1), "updates between two logged ones")
      .key("hang_seconds", &Log::hang_seconds, at_least(0), "silence in an update that counts as a hang; 0: never")
      .key("hang_setup_seconds", &Log::hang_setup_seconds, at_least(0), "the same before the first update")
      .key("hang_checkpoint_seconds", &Log::hang_checkpoint_seconds, at_least(0),
           "the same while a checkpoint is written")
      .key("walltime", &Log::walltime, walltime(),
           "checkpoint and exit 75 after this time; leave room for both before the job's own limit")
      .key("tensorboard", &Log::tensorboard, any(), "write event files too");
  Section(k, "faults", &Config::faults, Change::free)
      .key("nan_updates", &Faults::nan_updates, at_least(1),
           "for tests: updates (numbers as in metrics.jsonl) in which a gradient of one rank becomes NaN")
      .key("nan_rank", &Faults::nan_rank, at_least(0), "that rank, modulo the number of ranks")
      .key("flip_update", &Faults::flip_update, at_least(0),
           "for tests: update in whose second pass (guard.replay_every) a gradient of one rank has a bit flipped; 0: "
           "none")
      .key("flip_rank", &Faults::flip_rank, at_least(0), "that rank, modulo the number of ranks");
  return k;
}

std::string range_text(const Rule& rule) {
  const bool low = rule.low > -Rule::kNoLimit, high = rule.high < Rule::kNoLimit;
  if (low && high && !rule.open_low && !rule.open_high) return fmt::format(" from {} to {}", rule.low, rule.high);
  std::string text;
  if (low) text += fmt::format(" {} {}", rule.open_low ? ">" : ">=", rule.low);
  if (high) text += fmt::format("{} {} {}", low ? " and" : "", rule.open_high ? "<" : "<=", rule.high);
  return text;
}

}  // namespace

const std::vector<std::pair<std::string, std::vector<std::string>>>& presets() {
  static const std::vector<std::pair<std::string, std::vector<std::string>>> names = {
      {"regnety",
       {"tiny", "200mf", "400mf", "600mf", "800mf", "1.6gf", "3.2gf", "4.0gf", "6.4gf", "8gf", "12gf", "16gf", "32gf",
        "64gf", "128gf", "256gf", "10b"}},
      {"resnet", {"18", "34", "50", "101", "152", "x50_32x4d", "x101_32x8d", "x101_32x16d", "x101_64x4d"}}};
  return names;
}

const std::vector<Key>& keys() {
  static const std::vector<Key> table = make_keys();
  return table;
}

const std::vector<std::string>& sections() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& key : keys()) {
      if (out.empty() || out.back() != key.section) out.push_back(key.section);
    }
    return out;
  }();
  return names;
}

const Key* find_key(const std::string& section, const std::string& name) {
  for (const auto& key : keys()) {
    if (key.section == section && key.name == name) return &key;
  }
  return nullptr;
}
std::string unused_because(const Key& key, const Config& config) {
  const auto& kinds = find_key("method", "kind")->rule.choices;
  if (key.section != config.method.kind && std::ranges::find(kinds, key.section) != kinds.end()) {
    return "method.kind = " + quote(config.method.kind);
  }
  const auto& trunks = key.rule.trunks;
  const bool used = trunks.empty() || std::ranges::find(trunks, config.model.trunk) != trunks.end();
  return used ? "" : "model.trunk = " + quote(config.model.trunk);
}

const Key* Key::overridden() const {
  return section == "crops" && name.starts_with(kOverride) ? find_key("augment", name.substr(std::strlen(kOverride)))
                                                           : nullptr;
}

std::string Key::type() const {
  static const char* const names[] = {"true/false", "integer", "number", "string", "integers", "numbers"};
  Config sample;
  return names[field(sample, 0).index()];
}

std::string Key::allowed() const {
  Config sample;
  const auto index = field(sample, 0).index();
  switch (index) {
    case 0:
      return "true or false";
    case 1:
      return "an integer" + range_text(rule) + (rule.zero_word.empty() ? "" : " or " + quote(rule.zero_word));
    case 2:
      return "a number" + range_text(rule);
    case 3: {
      if (rule.form_of) return rule.form;
      if (rule.choices.empty()) return "a string";
      std::string text;
      for (const auto& choice : rule.choices) text += (text.empty() ? "" : ", ") + quote(choice);
      return text;
    }
    default:
      break;
  }
  std::string text = "a list of ";
  if (rule.least_entries == rule.most_entries) {
    text += fmt::format("{} ", rule.least_entries);
  } else if (rule.least_entries > 0) {
    text += fmt::format("{} or more ", rule.least_entries);
  }
  return text + (rule.ascending ? "ascending " : "") + (index == 4 ? "integers" : "numbers") + range_text(rule);
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  const auto best = std::min_element(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
    return edit_distance(word, a) < edit_distance(word, b);
  });
  return best == candidates.end() ? "" : *best;
}

std::string nearest_key(const std::string& section, const std::string& name) {
  const auto score = [&](const Key& key) {
    // "hang" should find "hang_seconds", however many letters it lacks.
    const bool part = name.size() >= 3 && key.name.find(name) != std::string::npos;
    const std::size_t distance = edit_distance(name, key.name);
    return (part ? std::min<std::size_t>(distance, 1) : distance) + (key.section == section ? 0 : 1);
  };
  return std::min_element(keys().begin(), keys().end(), [&](const Key& a, const Key& b) { return score(a) < score(b); })
      ->path();
}

}  // namespace seer::config
