// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "seer/base/error.hpp"

namespace seer::train {
namespace {

TEST(Schedule, CosineMatchesTheGoldenRates) {
  const Schedule schedule(config::Schedule{}, 122070);  // the defaults are SEER's
  std::ifstream file(std::string(SEER_TEST_DATA) + "/schedule.csv");
  std::string line;
  std::getline(file, line);
  int rows = 0;
  while (std::getline(file, line)) {
    const auto comma = line.find(',');
    EXPECT_NEAR(schedule.lr(std::stoll(line.substr(0, comma))), std::stod(line.substr(comma + 1)), 1e-9) << line;
    ++rows;
  }
  EXPECT_EQ(rows, 10);
}

TEST(Schedule, PlateauHalvesWhenTheLossStopsDecreasing) {
  config::Schedule c;
  c.kind = "plateau";
  c.warmup_updates = 5;
  c.lr_start = 0;
  c.lr_peak = 1;
  c.plateau_window = 10;
  c.plateau_threshold = 0.001;
  c.plateau_factor = 0.5;
  c.plateau_minimum = 0.2;
  Schedule schedule(c, 1000);
  EXPECT_DOUBLE_EQ(schedule.lr(0), 0);
  EXPECT_DOUBLE_EQ(schedule.lr(4), 0.8);
  std::int64_t t = 0;
  for (; t < 45; ++t) schedule.observe(t, 10.0 - 0.1 * static_cast<double>(t));
  EXPECT_DOUBLE_EQ(schedule.lr(t), 1.0) << "a falling loss keeps the rate";
  for (; t < 55; ++t) schedule.observe(t, 6.0);
  const auto kept = schedule.state();
  Schedule resumed(c, 1000);
  resumed.restore(kept);
  for (; t < 65; ++t) {
    schedule.observe(t, 6.0);
    resumed.observe(t, 6.0);
  }
  EXPECT_DOUBLE_EQ(schedule.lr(t), 0.5);
  EXPECT_DOUBLE_EQ(resumed.lr(t), 0.5) << "the state is complete";
  for (; t < 200; ++t) schedule.observe(t, 6.0);
  EXPECT_DOUBLE_EQ(schedule.lr(t), 0.2) << "not below the minimum";
}

TEST(Schedule, ACosineOfAnotherLengthGoesOnFromTheKeptRate) {
  config::Schedule c;
  c.warmup_updates = 10;
  c.lr_peak = 1;
  c.lr_final = 0.01;
  const Schedule before(c, 100);
  const double rate = before.lr(60);
  const Schedule longer(c, 200, KeptRate{60, rate});
  EXPECT_EQ(longer.lr(5), before.lr(5));
  EXPECT_NEAR(longer.lr(60), rate, 1e-15);
  EXPECT_NEAR(longer.lr(130), (rate + 0.01) / 2, 1e-15) << "half of what is left";
  EXPECT_NEAR(longer.lr(200), 0.01, 1e-15);
  for (int t = 60; t < 200; ++t) EXPECT_LT(longer.lr(t + 1), longer.lr(t));
  const Schedule extended(c, 150, KeptRate{100, before.lr(100)});
  EXPECT_NEAR(extended.lr(120), 0.01, 1e-15) << "a run that has ended continues at its last rate";
  const Schedule ended(c, 60, KeptRate{60, rate});
  EXPECT_EQ(ended.lr(60), 0.01) << "no update is left";
}

TEST(Schedule, MultistepAndRefusals) {
  config::Schedule c;
  c.kind = "multistep";
  c.warmup_updates = 0;
  c.lr_peak = 2;
  c.milestones = {10, 20};
  const Schedule schedule(c, 30);
  EXPECT_DOUBLE_EQ(schedule.lr(9), 2);
  EXPECT_DOUBLE_EQ(schedule.lr(10), 0.2);
  EXPECT_DOUBLE_EQ(schedule.lr(29), 0.02);
  c.milestones = {20, 10};
  EXPECT_THROW(Schedule(c, 30), Error);
  c = config::Schedule();
  c.warmup_updates = 31;
  EXPECT_THROW(Schedule(c, 30), Error);
}

TEST(Schedule, MilestonesInEpochs) {
  config::Config c;
  c.data.global_batch = 256;
  c.schedule.kind = "multistep";
  c.schedule.milestone_epochs = {30, 60};
  EXPECT_THROW(in_updates(c, 128116), Error) << "epochs of what length?";
  c.schedule.epochs = 70;
  EXPECT_EQ(in_updates(c, 128116).milestones, (std::vector<std::int64_t>{15014, 30028})) << "VISSL's low-shot recipe";
  EXPECT_EQ(in_updates(c, 35).milestones, (std::vector<std::int64_t>{5, 9})) << "not before the epoch has ended";
  c.data.global_batch = 16;
  c.schedule.milestone_epochs = {16};
  EXPECT_EQ(in_updates(c, 35).milestones, (std::vector<std::int64_t>{35})) << "no image of the first 16 passes";
  c.schedule.kind = "cosine";
  EXPECT_TRUE(in_updates(c, 35).milestones.empty());
  c.schedule.kind = "multistep", c.schedule.milestones = {10};
  EXPECT_THROW(in_updates(c, 35), Error) << "two kinds of milestones";
}

}  // namespace
}  // namespace seer::train
