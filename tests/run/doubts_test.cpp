// SPDX-License-Identifier: Apache-2.0
#include "seer/run/trainer.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace seer::run {
namespace {

config::Config sensible() {
  config::Config c;
  c.data.global_batch = 16;
  c.head.prototypes = 20;
  c.swav.freeze_prototypes_updates = 10;
  c.schedule.warmup_updates = 10;
  c.checkpoint.every_updates = 20;
  return c;
}
const Setting kRun = {.images = 64, .updates = 40, .ranks = 2};

/// The one doubt about the settings.
std::string only(const config::Config& c, const Setting& run = kRun) {
  const auto lines = doubts(c, run);
  EXPECT_EQ(lines.size(), 1U) << (lines.empty() ? "" : lines.back());
  return lines.empty() ? "" : lines.front();
}

TEST(Doubts, NoneAboutSensibleSettings) {
  EXPECT_TRUE(doubts(sensible(), kRun).empty());
}

TEST(Doubts, DataAndBatchThatDoNotGoTogether) {
  auto run = kRun;
  run.images = 10;
  auto c = sensible();
  c.head.prototypes = 8;
  EXPECT_EQ(
      only(c, run),
      "data.global_batch = 16: more than the 10 images of the data set, so an update contains images more than once");
  c = sensible();
  c.head.prototypes = 65;
  EXPECT_EQ(only(c), "head.prototypes = 65: more than the 64 images of the data set");
  c = sensible();
  c.data.global_batch = 2;
  c.parallel.bn_group_size = 1;
  EXPECT_EQ(
      only(c),
      "parallel.bn_group_size = 1: BatchNorm takes its statistics over a single image (data.global_batch = 2 on 2 "
      "ranks)");
  c.data.global_batch = 1;
  run = kRun;
  run.ranks = 1;
  EXPECT_EQ(doubts(c, run).size(), 2U) << "codes as well";
  c = sensible();
  c.swav.queue_length = 64;
  EXPECT_NE(only(c).find("swav.queue_length = 64: with the batch more than the 64 images"), std::string::npos);
}

TEST(Doubts, TrunksThatNeverTrain) {
  auto c = sensible();
  c.model.init_from = "weights.h5";
  c.continuing.freeze_trunk_updates = 30;
  c.continuing.ramp_updates = 10;
  EXPECT_EQ(only(c), "continue.ramp_updates = 10: the trunk never has the whole rate, for the run has 40 updates");
  c.continuing.ramp_updates = 5;
  EXPECT_TRUE(doubts(c, kRun).empty());
  c.continuing.freeze_trunk_updates = 40;
  EXPECT_EQ(doubts(c, kRun).size(), 2U) << doubts(c, kRun).front();
  c.model.init_from = "";
  EXPECT_TRUE(doubts(c, kRun).empty());
}

TEST(Doubts, AWatchThatNeverLooks) {
  auto c = sensible();
  c.watch.train = "labelled";
  EXPECT_EQ(only(c), "watch.every = 0: the other keys of [watch] are without effect");
  c.watch.every = 10;
  EXPECT_TRUE(doubts(c, kRun).empty());
  c.watch.resize = 128;
  EXPECT_EQ(only(c), "watch.crop = 224: larger than watch.resize = 128, so images get a black border");
  c.watch.crop = 128;
  EXPECT_TRUE(doubts(c, kRun).empty());
}

TEST(Doubts, TestCropsWithABlackBorder) {
  auto c = sensible();
  c.method.kind = "supervised";
  c.finetune.classes = 2;
  c.data.test_shards = "test";
  c.finetune.test_resize = 200;
  EXPECT_EQ(only(c),
            "finetune.test_crop = 224: larger than finetune.test_resize = 200, so test images get a black border");
}

TEST(Doubts, KeysWithoutEffectInFineTuning) {
  auto tuned = sensible();
  tuned.method.kind = "supervised";
  tuned.finetune.classes = 2;
  tuned.finetune.from = "weights.h5";
  tuned.data.test_shards = "test";
  EXPECT_TRUE(doubts(tuned, kRun).empty());
  auto c = tuned;
  c.finetune.lr_trunk = 0.1;
  c.finetune.decay_trunk = 0;
  c.finetune.freeze = "trunk";
  EXPECT_EQ(doubts(c, kRun).size(), 2U);
  EXPECT_EQ(doubts(c, kRun).front(), "finetune.lr_trunk = 0.1: without effect, for finetune.freeze = \"trunk\"");
  c.finetune.freeze_updates = 10;
  EXPECT_TRUE(doubts(c, kRun).empty()) << "it trains later";
  c = tuned;
  c.finetune.mix_probability = 0.5;
  EXPECT_EQ(only(c), "finetune.mix_probability = 0.5: without effect, for mixup and cutmix are 0");
  c.finetune.cutmix = 1;
  EXPECT_TRUE(doubts(c, kRun).empty());
  c = tuned;
  c.finetune.batchnorm = "frozen";
  EXPECT_TRUE(doubts(c, kRun).empty());
  c.finetune.from = "";
  EXPECT_EQ(only(c).rfind("finetune.batchnorm = frozen: random weights", 0), 0U);
}

TEST(Doubts, ScalesAndRatesTheWrongWayRound) {
  auto c = sensible();
  c.augment.std = {58, 57, 57};
  EXPECT_EQ(only(c).rfind("augment.std = 58: ", 0), 0U);
  c = sensible();
  c.augment.mean = {0.5, 0.5, 123};
  EXPECT_EQ(only(c).rfind("augment.mean = 123: ", 0), 0U);
  c = sensible();
  c.schedule.lr_start = 2 * c.schedule.lr_peak;
  EXPECT_EQ(only(c), fmt::format("schedule.lr_start = {}: the rate falls in the warm-up", c.schedule.lr_start));
  c.schedule.warmup_updates = 0;
  EXPECT_TRUE(doubts(c, kRun).empty());
  c = sensible();
  c.schedule.lr_final = 2 * c.schedule.lr_peak;
  EXPECT_EQ(only(c), fmt::format("schedule.lr_final = {}: the rate rises to the end", c.schedule.lr_final));
}

TEST(Doubts, WhatNeverTakesEffect) {
  const auto never = [](auto change, const std::string& begins, std::uint64_t images = 10000) {
    auto c = sensible();
    change(c);
    auto run = kRun;
    run.images = images;
    const auto line = only(c, run);
    EXPECT_EQ(line.rfind(begins, 0), 0U) << line;
    EXPECT_NE(line.find("the run has 40 updates"), std::string::npos) << line;
  };
  using config::Config;
  never([](Config& c) { c.swav.freeze_prototypes_updates = 40; }, "swav.freeze_prototypes_updates = 40: ");
  never([](Config& c) { c.schedule.warmup_updates = 40; }, "schedule.warmup_updates = 40: ");
  never([](Config& c) { c.checkpoint.every_updates = 41; }, "checkpoint.every_updates = 41: ");
  never([](Config& c) { c.checkpoint.keep_every = 50; }, "checkpoint.keep_every = 50: ");
  never([](Config& c) { c.guard.replay_every = 41; }, "guard.replay_every = 41: ");
  never([](Config& c) { c.log.every = 41; }, "log.every = 41: ");
  never([](Config& c) { c.swav.queue_length = 640; }, "swav.queue_length = 640: ");
  never([](Config& c) { c.swav.queue_length = 64, c.swav.queue_start_update = 40; }, "swav.queue_start_update = 40: ");
  never(
      [](Config& c) {
        c.schedule.kind = "multistep", c.schedule.milestones = {20, 40};
      },
      "schedule.milestones = 40: ");
  never([](Config& c) { c.schedule.kind = "plateau", c.schedule.plateau_window = 20; },
        "schedule.plateau_window = 20: ");

  auto c = sensible();
  c.swav.queue_length = 624;
  EXPECT_TRUE(doubts(c, {.images = 10000, .updates = 40}).empty()) << "full before the last update";
  c.swav.queue_length = 40;
  EXPECT_EQ(only(c, {.images = 10000, .updates = 40}),
            "swav.queue_length = 40: 32 are used, a multiple of data.global_batch");
  c = sensible();
  c.schedule.epochs = 10;
  c.schedule.total_updates = 99;
  EXPECT_NE(only(c).find("schedule.epochs sets the length"), std::string::npos);
  c = sensible();
  c.schedule.milestones = {8, 16};
  EXPECT_EQ(only(c), "schedule.milestones = [8, 16]: without effect, for schedule.kind is not \"multistep\"");
  c = sensible();
  c.schedule.milestone_epochs = {1.5};
  EXPECT_EQ(only(c).rfind("schedule.milestone_epochs = [1.5]: without effect", 0), 0U);
  c = sensible();
  c.log.walltime = "1-00";
  EXPECT_TRUE(doubts(c, kRun).empty());
  auto run = kRun;
  run.job_ends_s = 3600;
  EXPECT_EQ(only(c, run), "log.walltime = 1-00: without effect, the job ends before");
}

}  // namespace
}  // namespace seer::run
