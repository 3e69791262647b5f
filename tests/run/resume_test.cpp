// SPDX-License-Identifier: Apache-2.0
// The learning rate of a run that continues with another schedule.
#include "seer/run/resume.hpp"

#include <gtest/gtest.h>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::run {
namespace {

using namespace train;

config::Config configured(std::int64_t updates) {
  config::Config c;
  c.data.global_batch = 10;
  c.schedule.warmup_updates = 10;
  c.schedule.lr_start = 0;
  c.schedule.lr_peak = 1;
  c.schedule.lr_final = 0.01;
  c.schedule.total_updates = updates;
  return c;
}

/// The state of a run with these settings after `update` updates over 100 images.
checkpoint::State after(std::int64_t update, const config::Config& config) {
  checkpoint::State state;
  state.update = update;
  state.images_seen = update * config.data.global_batch;
  state.global_batch = config.data.global_batch;
  state.shards = {{"a.h5", 1, 60}, {"b.h5", 1, 40}};
  state.config_toml = config::to_toml(config);
  return state;
}

Schedule go_on(const checkpoint::State& from, const config::Config& now, const PretrainOptions& options = {},
               std::uint64_t images = 100) {
  const auto ahead = from.images_seen - from.update * now.data.global_batch;
  return schedule_from(from, now, total_updates(now, images, ahead), images, options);
}

std::string refusal(const checkpoint::State& from, const config::Config& now) {
  try {
    go_on(from, now);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_TRUE(e.agreed());
    return e.message();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

PretrainOptions allow(const std::string& name) {
  PretrainOptions options;
  options.allow_changes = {name};
  return options;
}

TEST(Resume, ACosineOfAnotherLengthKeepsTheRateUnlessAskedOtherwise) {
  const auto before = configured(40), longer = configured(80);
  EXPECT_EQ(go_on(after(25, before), before).lr(25), Schedule(before.schedule, 40).lr(25)) << "nothing has changed";
  for (const std::int64_t update : {25, 40}) {
    const auto from = after(update, before);
    const double rate = Schedule(before.schedule, 40).lr(update);
    EXPECT_DOUBLE_EQ(go_on(from, longer).lr(update), rate);
    const auto said = log::warnings().back();
    for (const char* piece : {"schedule.total_updates = 80 (80 updates; the checkpoint's run: 40)", "goes on from",
                              "--allow-change schedule.total_updates"}) {
      EXPECT_NE(said.find(piece), std::string::npos) << piece << " in " << said;
    }
    EXPECT_EQ(go_on(from, longer, allow("schedule")).lr(update), Schedule(longer.schedule, 80).lr(update));

    // Once kept, the rates follow from the checkpoint, for all options; and they can be kept again.
    const auto kept = go_on(from, longer);
    auto later = after(update + 10, longer);
    later.kept_rate = {static_cast<double>(kept.kept()->update), kept.kept()->rate};
    for (const auto& options : {PretrainOptions(), allow("schedule")}) {
      EXPECT_EQ(go_on(later, longer, options).lr(70), kept.lr(70));
    }
    EXPECT_DOUBLE_EQ(go_on(later, configured(90)).lr(update + 10), kept.lr(update + 10));
    EXPECT_FALSE(go_on(later, configured(90), allow("schedule.epochs")).kept());
  }
  EXPECT_DOUBLE_EQ(go_on(after(25, before), configured(30)).lr(30), 0.01) << "a shorter one";
  EXPECT_NE(refusal(after(25, before), configured(24)).find("has done 25 updates already"), std::string::npos);
  EXPECT_EQ(go_on(after(25, before), configured(25)).total_updates(), 25) << "it ends here";
}

TEST(Resume, WhereTheRateDoesNotDependOnTheLengthItMayChange) {
  EXPECT_EQ(go_on(after(5, configured(40)), configured(80)).lr(20), Schedule(configured(80).schedule, 80).lr(20))
      << "in the warm-up";
  for (const char* kind : {"plateau", "multistep"}) {
    auto before = configured(40), longer = configured(80);
    before.schedule.kind = longer.schedule.kind = kind;
    before.schedule.milestones = longer.schedule.milestones = {20, 60};
    auto from = after(30, before);
    if (before.schedule.kind == "plateau") from.plateau = {0.25, 3, 0, 0};
    EXPECT_DOUBLE_EQ(go_on(from, longer).lr(30), before.schedule.kind == "plateau" ? 0.25 : 0.1) << kind;
  }
}

TEST(Resume, EpochsOfAnotherDataSetAreAnotherLength) {
  auto c = configured(1);
  c.schedule.epochs = 4;  // 40 updates
  EXPECT_EQ(go_on(after(20, c), c).total_updates(), 40);
  EXPECT_DOUBLE_EQ(go_on(after(20, c), c, {}, 200).lr(20), Schedule(c.schedule, 40).lr(20));
  EXPECT_EQ(go_on(after(20, c), c, allow("schedule.epochs"), 200).total_updates(), 80);
  EXPECT_EQ(go_on(after(20, c), configured(40)).lr(20), Schedule(configured(40).schedule, 40).lr(20))
      << "the same length, said otherwise";
}

TEST(Resume, OtherRatesThatWereAllowedAreTaken) {
  auto before = configured(40), lower = configured(40);
  lower.schedule.lr_peak = 0.5;
  const auto from = after(20, before);
  EXPECT_EQ(go_on(from, lower, allow("schedule.lr_peak")).lr(20), Schedule(lower.schedule, 40).lr(20));
}

TEST(Resume, AnotherLengthKeepsTheRateThoughOtherKeysOfTheScheduleMayChange) {
  const auto before = configured(40);
  const auto from = after(25, before);
  auto now = configured(60);
  now.schedule.lr_final = 0.02;
  auto same_length = before;
  same_length.schedule.lr_final = 0.02;
  EXPECT_DOUBLE_EQ(go_on(from, now, allow("schedule.lr_final")).lr(25), Schedule(same_length.schedule, 40).lr(25));
  // Keys that a cosine does not use leave a kept rate alone.
  const auto kept = go_on(from, configured(80));
  auto later = after(30, configured(80));
  later.kept_rate = {static_cast<double>(kept.kept()->update), kept.kept()->rate};
  auto other = configured(80);
  other.schedule.milestones = {3, 7};
  EXPECT_EQ(go_on(later, other, allow("schedule.milestones")).lr(60), kept.lr(60));
  // A kept rate falls to the new final rate.
  auto lower = configured(80);
  lower.schedule.lr_final = 0.005;
  EXPECT_NEAR(go_on(later, lower, allow("schedule.lr_final")).lr(30), kept.lr(30), 0.01);
  EXPECT_TRUE(go_on(later, lower, allow("schedule.lr_final")).kept());
}

TEST(Resume, AConfigurationThatThisVersionRefusesIsNoObstacle) {
  auto from = after(20, configured(40));
  from.config_toml = "[swav]\nepsilon = -3.0\n";
  EXPECT_EQ(go_on(from, configured(80)).total_updates(), 80);
}

}  // namespace
}  // namespace seer::run
