// SPDX-License-Identifier: Apache-2.0
#include "seer/run/tester.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/progress.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/device/session.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/eval/metrics.hpp"
#include "seer/run/labels.hpp"

namespace seer::run {
namespace {

constexpr std::int64_t kBatchImages = 32;

/// Truth of these images, [images, classes]: 1 present, 0 absent, -1 left out.
std::vector<std::int8_t> truth_of(const data::Targets& targets, const data::Targets& ignored,
                                  const std::vector<std::int32_t>& number, std::int64_t classes) {
  std::vector<std::int8_t> truth(targets.images() * static_cast<std::size_t>(classes), 0);
  const auto set = [&](std::size_t image, std::int32_t c, std::int8_t value) {
    const auto column = number.empty() ? c : number.at(static_cast<std::size_t>(c));
    truth.at(image * static_cast<std::size_t>(classes) + static_cast<std::size_t>(column)) = value;
  };
  for (std::size_t i = 0; i < targets.images(); ++i) {
    for (const auto c : targets.of(i)) set(i, c, 1);
    for (const auto c : ignored.of(i)) set(i, c, -1);
  }
  return truth;
}

}  // namespace

Tester::Tester(const config::Config& config, const comm::Communicator& comm)
    : config_(config), comm_(comm), data_(data::DataSet::open(config.data.test_shards, comm)) {
  const auto train = data::DataSet::open(config.data.shards, comm);
  comm::agree(comm, "the test set", [&] {
    if (!data_.has_labels())
      throw Error(ExitCode::input,
                  fmt::format("data.test_shards {}: the images have no labels", config.data.test_shards),
                  "pack them with --labels");
    number_ = same_classes(train.classes(), data_);
  });
}

std::vector<method::Figure> Tester::test(train::Learner& learner) const {
  const auto classes = learner.width();
  const bool multi = config_.finetune.targets == "multi";
  data::EvalOptions options;
  options.resize = config_.finetune.test_resize;
  options.crop = config_.finetune.test_crop;
  options.batch = kBatchImages;
  options.threads = device::threads();
  options.normalisation = config_.augment;
  options.max_pixels = config_.data.max_pixels;
  const auto total = data_.images();
  const auto begin = eval::slice_begin(total, comm_.rank(), comm_.size()),
             end = eval::slice_begin(total, comm_.rank() + 1, comm_.size());
  data::EvalReader reader(data_, begin, end, options);
  // A rank without a further batch computes a made-up one, because all ranks gather parameters together.
  const auto mine = static_cast<std::int64_t>((end - begin + kBatchImages - 1) / kBatchImages);
  const auto batches = comm_.all_reduce(mine, comm::Op::max);
  const auto side = options.crop;
  std::vector<float> nothing(mine < batches ? static_cast<std::size_t>(side * side * 3) : 0);
  eval::AccuracyCounter accuracy(classes);
  std::vector<float> all_scores;
  std::vector<std::int8_t> truth;
  std::int64_t images = 0;
  learner.begin_test();
  for (std::int64_t b = 0; b < batches; ++b) {
    comm::tell_progress();
    if (b >= mine) {
      learner.scores({.data = nothing.data(), .shape = {1, side, side, 3}});
      continue;
    }
    const auto* const batch = reader.next();
    ensure(batch != nullptr, "a slice of the test set has the batches that were counted");
    const auto scores = learner.scores(batch->pixels);
    if (!std::ranges::all_of(scores, [](float s) { return std::isfinite(s); }))
      throw Error(ExitCode::numerics, "the scores of test images are not finite",
                  "the network has diverged: lower schedule.lr_peak, finetune.lr_trunk or finetune.lr_head");
    const auto first = batch->indices.front(), count = static_cast<std::uint64_t>(batch->images);
    const auto targets = data_.targets(first, count);
    if (multi) {
      const auto more = truth_of(targets, data_.ignored(first, count), number_, classes);
      truth.insert(truth.end(), more.begin(), more.end());
      all_scores.insert(all_scores.end(), scores.begin(), scores.end());
      images += batch->images;
      continue;
    }
    std::vector<std::int32_t> labels;
    for (std::size_t i = 0; i < targets.images(); ++i) {
      const auto of = targets.of(i);
      const auto label = of.size() == 1 ? of[0] : -1;
      labels.push_back(label < 0 || number_.empty() ? label : number_.at(static_cast<std::size_t>(label)));
    }
    if (std::ranges::any_of(labels, [&](auto label) { return label >= classes; }))
      throw Error(ExitCode::input, fmt::format("data.test_shards: a label is outside of the {} classes", classes),
                  "test on images of the classes that the network learns");
    accuracy.add(scores, labels);
  }
  learner.end_test();
  log::finish_progress();
  if (multi) {
    const auto result = eval::mean_average_precision(comm_, all_scores, truth, classes);
    return {{"test_map", eval::percent(result.all_points)},
            {"test_map_11", eval::percent(result.eleven_points)},
            {"test_images", static_cast<double>(comm_.all_reduce(images, comm::Op::sum))}};
  }
  const auto result = accuracy.result(comm_);
  return {{"test_top1", eval::percent(result.top1)},
          {"test_top5", eval::percent(result.top5)},
          {"test_mean_per_class", eval::percent(result.mean_per_class)},
          {"test_images", static_cast<double>(result.images)}};
}

}  // namespace seer::run
