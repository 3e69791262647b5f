// SPDX-License-Identifier: Apache-2.0
// Training with labels: its loss is that of the scores on any number of ranks, and frozen parts, rates, decays and
// averaged weights do what they say, in every mode of sharding.
#include <algorithm>
#include <cmath>

#include "on_device.hpp"
#include "seer/train/compute.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

constexpr std::int64_t kClasses = 5;

const comm::Communicator& world() {
  static const auto comm = comm::Communicator::world();
  return comm;
}

config::Config supervised(const ShardMode& mode = {"none", 0}) {
  auto c = golden_config(world().size(), mode);
  c.method.kind = "supervised";
  c.finetune.classes = kClasses;
  c.crops = {{2, 32, {0.08, 1.0}}};
  c.optimizer = {.kind = "sgd", .momentum = 0.9, .nesterov = true, .weight_decay = 0.01};
  c.schedule.lr_peak = 0.05;
  return c;
}

std::int32_t class_of(std::int64_t image) {
  return static_cast<std::int32_t>(3 * image % kClasses);
}

struct Training {
  explicit Training(const config::Config& config)
      : learner(config, world(), phases, plan_memory(config, world()), make_backend(config, world())) {
    set_golden_start(learner);
  }
  Learner::Outcome update(std::int64_t t, double lr = 0.05) {
    GoldenBatch golden(t, world());
    auto& batch = golden.batch;
    batch.groups.resize(1);
    const auto first = world().rank() * batch.images;
    for (std::int64_t i = 0; i < batch.images; ++i) {
      batch.positions.push_back(static_cast<std::uint64_t>(first + i));
      batch.targets.add(std::array{class_of(first + i)});
    }
    return learner.update(batch, t, lr, Learner::Figures::yes);
  }
  std::vector<float> of(const std::string& group, bool trunk_only = false, bool heads_only = false) {
    std::vector<float> out;
    for (const auto& slab : learner.slabs()) {
      const bool head = slab.name.starts_with("classifier") || slab.name.starts_with("head");
      if (slab.group == group && !(trunk_only && head) && !(heads_only && !head))
        out.insert(out.end(), slab.data, slab.data + (slab.end - slab.begin));
    }
    return out;
  }
  std::vector<float> trunk() { return of("model", true); }
  std::vector<float> head() { return of("model", false, true); }
  Phases phases;
  Learner learner;
};

/// Cross-entropy of all crops of all images, from scores in evaluation mode.
double loss_of_scores(Learner& learner, double smoothing) {
  double sum = 0;
  for (int crop = 0; crop < 2; ++crop) {
    std::vector<double> planar;
    const std::int64_t plane = 3 * 32 * 32;
    for (std::int64_t i = 0; i < kImages * plane; ++i)
      planar.push_back(test::hash_value(static_cast<std::uint64_t>(1001 + crop), static_cast<std::uint64_t>(i), 1.7));
    auto pixels = test::to_nhwc(planar, kImages, 3, 32, 32);
    const auto scores = learner.scores({.data = pixels.data(), .shape = {kImages, 32, 32, 3}});
    EXPECT_EQ(std::ssize(scores), kImages * kClasses);
    for (std::int64_t i = 0; i < kImages; ++i) {
      const auto* const row = scores.data() + i * kClasses;
      double all = 0, mean = 0;
      for (std::int64_t k = 0; k < kClasses; ++k) {
        all += std::exp(static_cast<double>(row[k]));
        mean += static_cast<double>(row[k]) / kClasses;
      }
      sum += std::log(all) - (1 - smoothing) * static_cast<double>(row[class_of(i)]) - smoothing * mean;
    }
  }
  return sum / (2 * kImages);
}

TEST(Supervised, LossIsThatOfTheScoresInEveryModeOfSharding) {
  std::vector<double> losses;
  for (const auto& mode : kShardModes) {
    if (mode.group > world().size()) continue;
    SCOPED_TRACE(std::string(mode.shard) + " " + std::to_string(mode.group));
    auto config = supervised(mode);
    config.finetune.batchnorm = "frozen";
    config.finetune.label_smoothing = 0.1;
    Training run(config);
    const double wanted = loss_of_scores(run.learner, 0.1);
    const auto first = run.update(0);
    EXPECT_NEAR(first.loss, wanted, 2e-5 * wanted);
    ASSERT_EQ(first.figures.size(), 1U);
    EXPECT_EQ(first.figures[0].name, "train_top1");
    EXPECT_EQ(std::fmod(first.figures[0].value * 2 * kImages, 100), 0);
    std::vector<double> found;
    for (std::int64_t t = 1; t < 4; ++t) found.push_back(run.update(t).loss);
    if (losses.empty()) losses = found;
    for (std::size_t t = 0; t < found.size(); ++t) EXPECT_NEAR(found[t], losses[t], 1e-5 * losses[t]) << t;
  }
}

// A test in between changes no bit of what follows, and frozen statistics stay as they are.
TEST(Supervised, ScoresChangeNothing) {
  for (const char* shard : {"none", "parameters"}) {
    Training tested(supervised({shard, 0})), untested(supervised({shard, 0}));
    for (std::int64_t t = 0; t < 3; ++t) {
      loss_of_scores(tested.learner, 0);
      EXPECT_EQ(tested.update(t).loss, untested.update(t).loss);
    }
    EXPECT_EQ(tested.of("model"), untested.of("model"));
    EXPECT_EQ(tested.of("buffers"), untested.of("buffers"));
  }
  auto config = supervised();
  config.finetune.batchnorm = "frozen";
  Training run(config);
  const auto before = run.of("buffers");
  run.update(0);
  EXPECT_EQ(run.of("buffers"), before);
}

// With several BatchNorm groups a test takes the statistics of the first on all ranks, and then each has its own again.
TEST(Supervised, ATestTakesTheStatisticsOfTheFirstGroup) {
  for (const double ema : {0.0, 0.5}) {
    auto config = supervised();
    config.parallel.bn_group_size = 1;
    config.finetune.ema = ema;
    Training tested(config), untested(config);
    const auto statistics = [](Training& run, Learner::Values which) {
      const auto* const values = run.learner.buffers(which);
      return std::vector<float>(values, values + run.learner.model().buffers().block_elems());
    };
    for (std::int64_t t = 0; t < 3; ++t) {
      const auto own = statistics(tested, Learner::Values::tested);
      tested.learner.begin_test();
      const double loss = loss_of_scores(tested.learner, 0);
      EXPECT_EQ(world().all_reduce(loss, comm::Op::max), loss) << "the same network on all ranks";
      tested.learner.end_test();
      EXPECT_EQ(statistics(tested, Learner::Values::tested), own);
      EXPECT_EQ(tested.update(t).loss, untested.update(t).loss);
    }
    EXPECT_EQ(tested.of("model"), untested.of("model"));
    for (const auto which : {Learner::Values::learning, Learner::Values::tested})
      EXPECT_EQ(statistics(tested, which), statistics(untested, which));
  }
}

// To leave out the backward pass of a frozen part changes no bit of the others.
TEST(Supervised, FrozenPartsStayAndTheOthersTrainAsIfTheyDid) {
  for (const std::string freeze : {"stem", "res3", "trunk"}) {
    for (const char* shard : {"none", "parameters"}) {
      SCOPED_TRACE(freeze + " " + shard);
      auto config = supervised({shard, 0});
      config.finetune.batchnorm = "frozen";
      Training all(config);
      config.finetune.freeze = freeze;
      config.finetune.freeze_updates = 1;
      Training frozen(config);
      const auto start = frozen.trunk();
      EXPECT_EQ(all.update(0).loss, frozen.update(0).loss);
      EXPECT_EQ(all.head(), frozen.head());
      EXPECT_EQ(frozen.trunk() == start, freeze == "trunk");
      std::size_t differing = 0;
      const auto now = frozen.trunk(), whole = all.trunk();
      for (std::size_t i = 0; i < now.size(); ++i) {
        if (now[i] == whole[i]) continue;
        EXPECT_EQ(now[i], start[i]);
        ++differing;
      }
      EXPECT_GT(differing, 0U);
      frozen.update(1);
      EXPECT_NE(frozen.trunk(), now);
    }
  }
}

TEST(Supervised, RunningStatisticsOfAFrozenTrunkStay) {
  auto config = supervised();
  config.finetune.freeze = "trunk";
  Training run(config);
  const auto buffers = run.of("buffers"), trunk = run.trunk(), head = run.head();
  for (std::int64_t t = 0; t < 2; ++t) run.update(t);
  EXPECT_EQ(run.of("buffers"), buffers);
  EXPECT_EQ(run.trunk(), trunk);
  EXPECT_NE(run.head(), head);
  config.finetune.freeze = "res9";
  EXPECT_THROW(Training{config}, Error);
}

TEST(Supervised, TrunkAndHeadHaveTheirOwnRatesAndDecays) {
  auto config = supervised();
  config.optimizer.momentum = 0;
  config.optimizer.weight_decay = 0;
  Training usual(config);
  const auto trunk = usual.trunk(), head = usual.head();
  usual.update(0);
  config.finetune.lr_head = 4 * config.schedule.lr_peak;
  config.finetune.lr_trunk = 0.5 * config.schedule.lr_peak;
  config.finetune.decay_head = 0.3;
  Training other(config);
  other.update(0);
  const auto a = usual.trunk(), b = other.trunk();
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(b[i] - trunk[i], 0.5F * (a[i] - trunk[i]), 1e-6F);
  const auto c = usual.head(), d = other.head();
  for (std::size_t i = 0; i < c.size(); ++i)
    EXPECT_NEAR(d[i] - head[i], 4 * (c[i] - head[i]) - 4 * 0.05F * 0.3F * head[i], 2e-6F);
}

TEST(Supervised, WeightsOfNormalisationsDecayOnlyIfAsked) {
  auto config = supervised();
  config.finetune.freeze = "";
  const auto model = method::make_model(config);
  config.finetune.decay_norm = true;
  const auto all = method::make_model(config);
  int spared = 0;
  for (const auto& p : model.parameters().entries()) {
    const bool vector_of_norm = p.shape.size() == 1 && (p.init == nn::Init::one || p.init == nn::Init::zero);
    EXPECT_EQ(p.treatment.decay, !vector_of_norm) << p.name;
    spared += p.treatment.decay ? 0 : 1;
    EXPECT_TRUE(all.parameters().find(p.name).treatment.decay);
  }
  EXPECT_GT(spared, 20);
}

TEST(Supervised, AveragedWeightsAndStatisticsAreTested) {
  for (const char* shard : {"none", "parameters"}) {
    auto config = supervised({shard, 0});
    config.finetune.ema = 0.5;
    Training run(config);
    const auto start = run.of("model");
    EXPECT_EQ(run.of("teacher").size(), start.size());
    auto average = run.of("teacher"), statistics = run.of("teacher_buffers");
    for (std::int64_t t = 0; t < 3; ++t) {
      run.update(t);
      const float m =
          static_cast<float>(std::min(0.5, (1.0 + static_cast<double>(t)) / (10.0 + static_cast<double>(t))));
      const auto follow = [&](std::vector<float>& of, const std::vector<float>& to, const std::vector<float>& found) {
        for (std::size_t i = 0; i < of.size(); ++i) {
          of[i] = m * of[i] + (1 - m) * to[i];
          ASSERT_NEAR(of[i], found[i], 1e-5F * (1 + std::abs(of[i])));
        }
      };
      follow(average, run.of("model"), run.of("teacher"));
      follow(statistics, run.of("buffers"), run.of("teacher_buffers"));
    }
    // A network whose weights are the average gives the same scores.
    config.finetune.ema = 0;
    Training plain(config);
    const auto from = run.learner.slabs();
    for (auto& to : plain.learner.slabs()) {
      for (const auto& slab : from) {
        if (slab.name != to.name || slab.group != (to.group == "model" ? "teacher" : "teacher_buffers")) continue;
        std::copy_n(slab.data, slab.end - slab.begin, to.data);
      }
    }
    plain.learner.share_loaded();
    EXPECT_NEAR(loss_of_scores(run.learner, 0), loss_of_scores(plain.learner, 0), 1e-6);
  }
}

TEST(Supervised, LayersOfTheProjectionHeadStayBelowTheClassifier) {
  auto config = supervised();
  config.finetune.head_layers = 1;
  Training run(config);
  const auto& parameters = run.learner.model().parameters();
  EXPECT_EQ(parameters.find("head.0.weight").shape, (std::vector<std::int64_t>{32, 64}));
  EXPECT_EQ(parameters.find("head.0.norm.weight").elems, 32);
  EXPECT_EQ(parameters.find("classifier.weight").shape, (std::vector<std::int64_t>{kClasses, 32}));
  const double first = run.update(0).loss;
  double last = first;
  for (std::int64_t t = 1; t < 4; ++t) last = run.update(0).loss;
  EXPECT_LT(last, first);
  config.finetune.head_layers = 3;
  EXPECT_THROW(Training{config}, Error);
}

using SupervisedOnDevice = test::OnDevice;

TEST_F(SupervisedOnDevice, ComputesWhatTheHostDoes) {
  auto config = supervised();
  config.finetune.freeze = "res2";
  config.finetune.ema = 0.9;
  const auto course = [&] {
    Training run(config);
    std::vector<float> losses;
    for (std::int64_t t = 0; t < 3; ++t) losses.push_back(static_cast<float>(run.update(t).loss));
    losses.push_back(static_cast<float>(loss_of_scores(run.learner, 0)));
    return losses;
  };
  const auto host = course();
  config.parallel.device = "device";
  expect_near(course(), host, 1e-3, "losses");
}

TEST(Supervised, MemoryPlanHoldsWithAFrozenPartAndAveragedWeights) {
  auto config = supervised();
  config.finetune.freeze = "res3";
  config.finetune.ema = 0.9;
  const Topology here{.ranks = world().size(), .ranks_per_node = world().size()};
  const auto planned = plan_memory(config, here, 0, 0).footprint;
  Training run(config);
  for (std::int64_t t = 0; t < 3; ++t) run.update(t);
  const auto found = run.learner.footprint();
  EXPECT_EQ(found.parameters, planned.parameters);
  EXPECT_EQ(found.activations, planned.activations);
  EXPECT_EQ(found.other, planned.other);
  config.finetune.freeze = "";
  EXPECT_LT(planned.activations, plan_memory(config, here, 0, 0).footprint.activations);
}

}  // namespace
}  // namespace seer::train
