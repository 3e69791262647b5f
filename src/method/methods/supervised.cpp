// SPDX-License-Identifier: Apache-2.0
// Classification with labels (method.md 11): fine-tuning of trunk and, if wanted, the first layers of the projection
// head, below a new linear classifier.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/kernels/classify.hpp"
#include "seer/method/method.hpp"
#include "seer/method/mix.hpp"
#include "seer/nn/heads.hpp"

namespace seer::method {
namespace {

std::size_t at(std::int64_t index) {
  return static_cast<std::size_t>(index);
}

class Supervised final : public Method {
 public:
  explicit Supervised(const Parts& parts)
      : config_(parts.config.finetune),
        images_(parts.images),
        ranks_(parts.ranks.size()),
        multi_(config_.targets == "multi"),
        mix_(parts.config, parts.images),
        classes_(multi_ ? 0 : at(2 * images_), parts.queue.space),
        dense_(multi_ ? at(images_ * config_.classes) : 0, parts.queue.space),
        numbers_(2, parts.queue.space) {}

  void prepare(device::Queue& queue, const data::Batch& batch, std::int64_t update) override {
    if (mix_.on()) mix_.apply(queue, batch, update);
  }

  const Share& loss(const Step& step) override {
    auto queue = step.context.queue;
    const auto scores = step.outputs.back();
    const bool planned = queue.space == device::Space::planned;
    if (!planned) set_targets(step.batch);
    rows_ = scores.rows() * ranks_;
    const double each = 1 / static_cast<double>(rows_), weight = step.gradient_scale * each;
    if (multi_) {
      dense_.send(queue);
      kernels::binary_cross_entropy(queue, scores, dense_.on_queue(), images_, weight, step.d_output,
                                    numbers_.on_queue());
    } else {
      classes_.send(queue);
      const kernels::ClassTargets targets{classes_.on_queue(), classes_.on_queue() + images_, images_,
                                          static_cast<float>(mix_.lambda()),
                                          static_cast<float>(config_.label_smoothing)};
      kernels::cross_entropy(queue, scores, targets, weight, step.d_output, numbers_.on_queue());
    }
    numbers_.fetch(queue);
    queue.wait();
    share_.sums.clear();
    if (planned) return share_;  // no values
    share_.loss = numbers_.on_host()[0] * each;
    share_.sums.push_back(numbers_.on_host()[1]);
    return share_;
  }

  /// TensorFlow's rule, so that a short run is not an average with its start.
  double teacher_momentum(std::int64_t update, std::int64_t) const override {
    const auto t = static_cast<double>(update);
    return std::min(config_.ema, (1 + t) / (10 + t));
  }
  std::vector<Figure> figures(std::span<const double> sums) const override {
    return {{"train_top1", 100 * sums[0] / static_cast<double>(rows_)}};
  }
  std::size_t bytes() const override { return classes_.bytes() + dense_.bytes() + numbers_.bytes(); }

 private:
  void set_targets(const data::Batch& batch) {
    const auto& targets = batch.targets;
    ensure(targets.images() == at(images_), "supervised: the batch has no targets");
    for (const auto c : targets.values)
      if (c < 0 || c >= config_.classes) refuse(fmt::format("a target {}; there are {} classes", c, config_.classes));
    const auto share = static_cast<float>(mix_.lambda());
    if (!multi_) {
      for (std::int64_t i = 0; i < images_; ++i) {
        const auto of = targets.of(at(i));
        if (of.size() != 1)
          refuse(fmt::format("image {} with {} classes; finetune.targets = \"single\" wants one",
                             batch.positions[at(i)], of.size()));
        classes_.on_host()[i] = of[0];
      }
      for (std::int64_t i = 0; i < images_; ++i) classes_.on_host()[images_ + i] = classes_.on_host()[mix_.partner(i)];
      return;
    }
    const auto kept = static_cast<float>(1 - config_.label_smoothing);
    const auto spread = static_cast<float>(config_.label_smoothing / static_cast<double>(config_.classes));
    std::fill_n(dense_.on_host(), images_ * config_.classes, spread);
    const auto& ignored = batch.ignored;
    for (std::int64_t i = 0; i < images_; ++i) {
      float* const row = dense_.on_host() + i * config_.classes;
      for (const auto& [image, part] : {std::pair(i, share), std::pair(mix_.partner(i), 1 - share)}) {
        for (const auto c : targets.of(at(image))) row[c] += kept * part;
        if (part == 0 || ignored.images() == 0) continue;
        for (const auto c : ignored.of(at(image))) row[c] = kIgnored;
      }
    }
  }
  [[noreturn]] static void refuse(const std::string& found) {
    throw Error(ExitCode::input, "data.shards: found " + found, "pack the images with the labels that they have");
  }
  static constexpr float kIgnored = -8;  ///< stays negative when a partner's target is added

  config::Finetune config_;
  std::int64_t images_, ranks_, rows_ = 1;  ///< rows: of the scores, over all ranks
  bool multi_;
  Mix mix_;
  device::Mirrored<std::int32_t> classes_;  ///< of the images, then of their partners
  device::Mirrored<float> dense_;           ///< targets [images, classes]
  device::Mirrored<double> numbers_;        ///< this rank's summed loss, and hits
  Share share_;
};

nn::MakeHeads heads(const config::Config& config) {
  const auto& f = config.finetune;
  const auto& of = config.head.dims;
  const auto kept = at(f.head_layers);
  if (f.classes < 2 && f.targets == "single")
    throw Error(ExitCode::input, fmt::format("finetune.classes is {}; a classifier needs 2 or more", f.classes),
                "seer finetune takes the number from data.shards; elsewhere set it")
        .as_agreed();
  if (kept >= of.size())
    throw Error(ExitCode::input,
                fmt::format("finetune.head_layers = {}, but the projection head [{}] has {} layers", kept,
                            fmt::join(of, ", "), of.size() - std::min<std::size_t>(of.size(), 1)),
                "keep fewer layers, or 0: the classifier then takes the pooled features")
        .as_agreed();
  return [=, classes = f.classes](std::int64_t features, nn::ParameterTable& parameters, nn::ParameterTable& buffers) {
    std::vector<std::int64_t> dims = {features};
    if (kept > 0) dims.assign(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(kept + 1));
    dims.push_back(classes);
    const nn::ProjectorOptions options{.dims = dims, .batchnorm = true, .unit_rows = false, .last = "classifier"};
    nn::Heads out;
    out.push_back(nn::make_projector(options, features, parameters, buffers));
    return out;
  };
}

/// First element after the parameters that finetune.freeze covers.
std::int64_t frozen_end(const std::string& freeze, const nn::Chain& trunk) {
  if (freeze.empty()) return 0;
  if (freeze == "trunk") return trunk.segment_begins().back();
  std::vector<std::string> names;
  for (const auto& tap : trunk.taps()) {
    if (tap.name == freeze) return trunk.segment_begins().at(tap.segment + 1);
    names.push_back(tap.name);
  }
  names.emplace_back("trunk");
  throw config::unknown("finetune.freeze", freeze, names);
}

void treat(const config::Config& c, nn::Model& model) {
  const auto& f = c.finetune;
  const auto trunk_end = model.trunk().segment_begins().back(), frozen = frozen_end(f.freeze, model.trunk());
  model.treat([&](nn::Parameter& p) {
    const bool of_trunk = p.offset < trunk_end;
    auto& t = p.treatment;
    if (const double rate = of_trunk ? f.lr_trunk : f.lr_head; rate > 0) t.rate = rate / c.schedule.lr_peak;
    t.own_decay = of_trunk ? f.decay_trunk : f.decay_head;
    t.decay = f.decay_norm || !p.norm;
    if (p.offset < frozen) t.frozen_updates = f.freeze_updates > 0 ? f.freeze_updates : nn::kAlwaysFrozen;
  });
}

void doubts(const config::Config& c, std::int64_t, Doubts& out) {
  const auto& f = c.finetune;
  out.when(f.freeze.empty() && f.freeze_updates > 0, "finetune.freeze_updates", f.freeze_updates,
           "without effect, finetune.freeze names no part");
  out.never("finetune.freeze_updates", f.freeze_updates, f.freeze_updates + 1, "the frozen part never trains");
  const bool trunk_stays = f.freeze == "trunk" && f.freeze_updates == 0;
  const char* const frozen = "without effect, for finetune.freeze = \"trunk\"";
  out.when(trunk_stays && f.lr_trunk > 0, "finetune.lr_trunk", f.lr_trunk, frozen);
  out.when(trunk_stays && f.decay_trunk >= 0, "finetune.decay_trunk", f.decay_trunk, frozen);
  out.when(f.mix_probability != config::Finetune().mix_probability && f.mixup <= 0 && f.cutmix <= 0,
           "finetune.mix_probability", f.mix_probability, "without effect, for mixup and cutmix are 0");
  out.when(f.batchnorm == "frozen" && f.from.empty() && c.model.init_from.empty(), "finetune.batchnorm", f.batchnorm,
           "random weights have no running statistics to keep: finetune.from is \"\"");
  out.when(c.data.test_shards.empty(), "data.test_shards", "\"\"", "the run is not tested");
  out.when(f.test_crop > f.test_resize, "finetune.test_crop", f.test_crop,
           fmt::format("larger than finetune.test_resize = {}, so test images get a black border", f.test_resize));
  out.never("finetune.test_every", f.test_every, f.test_every, "there is no test before its end");
}

bool averages_weights(const config::Config& c) {
  return c.finetune.ema > 0;
}

}  // namespace

namespace methods {
extern const Kind supervised;
const Kind supervised = {.name = "supervised",
                         .heads = heads,
                         .make = make<Supervised>,
                         .doubts = doubts,
                         .reads_labels = true,
                         .treat = treat,
                         .averages = averages_weights};
}  // namespace methods

}  // namespace seer::method
