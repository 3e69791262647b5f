// SPDX-License-Identifier: Apache-2.0
#include "seer/run/guard.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "run/temporary_folder.hpp"
#include "seer/base/error.hpp"

namespace seer::run {
namespace {

using namespace train;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Learner::Outcome good(double loss = 3) {
  Learner::Outcome out;
  out.loss = loss;
  out.grad_norm = 1;
  return out;
}

Learner::Outcome bad(Cause cause, int rank = 1) {
  Learner::Outcome out;
  out.loss = 3;
  out.grad_norm = kNan;
  out.skipped = true;
  out.cause = cause;
  out.culprits = {{rank, "node7", "the gradient of stem.0.weight", {4711, 5}}};
  return out;
}

struct GuardTest : testing::Test {
  TemporaryFolder folder;
  config::Config config;
  GuardTest() { config.log.run_dir = folder.path(); }
  Guard guard() const { return Guard(config, true); }
  std::string text(const char* name) const {
    std::ifstream in(folder.path() + "/" + name);
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> out;
    std::istringstream in(text("skipped.jsonl"));
    for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
    return out;
  }
};

TEST_F(GuardTest, WantsACheckpointAfterSkipsInARowAndGivesUpAfterReloads) {
  config.guard.max_skips_in_a_row = 3;
  config.guard.max_reloads = 1;
  auto g = guard();
  std::int64_t t = 0;
  EXPECT_EQ(g.observe(++t, good()), Guard::Next::go_on);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(g.observe(++t, bad(Cause::not_finite)), Guard::Next::go_on);
  EXPECT_EQ(g.observe(++t, good()), Guard::Next::go_on) << "a good one ends the row";
  for (int i = 0; i < 2; ++i) EXPECT_EQ(g.observe(++t, bad(Cause::not_finite)), Guard::Next::go_on);
  EXPECT_EQ(g.observe(++t, bad(Cause::outlier)), Guard::Next::reload);
  g.reloaded(t, "run/checkpoints/update-00000001");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(g.observe(++t, bad(Cause::outlier)), Guard::Next::go_on);
}

TEST_F(GuardTest, TheRunThatIsGivenUpLeavesAnAccount) {
  config.guard.max_skips_in_a_row = 2;
  config.guard.max_reloads = 1;
  auto g = guard();
  g.observe(7, bad(Cause::not_finite));
  ASSERT_EQ(g.observe(8, bad(Cause::not_finite)), Guard::Next::reload);
  g.reloaded(8, "run/checkpoints/update-00000005");
  g.observe(9, bad(Cause::not_finite));
  try {
    g.observe(10, bad(Cause::not_finite, 3));
    FAIL() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::numerics);
    EXPECT_TRUE(e.agreed());
    const std::string what = e.what();
    EXPECT_NE(what.find("after 1 of 1 reloads"), std::string::npos) << what;
    EXPECT_NE(what.find("stem.0.weight on rank 3 (node7); images of the batch there: 4711, 5"), std::string::npos);
    EXPECT_NE(what.find("bad_numbers.txt"), std::string::npos);
  }
  const auto report = text("bad_numbers.txt");
  for (const char* piece :
       {"update 7 skipped", "update 8 skipped", "update-00000005", "update 9 skipped", "update 10", "rank 3"}) {
    EXPECT_NE(report.find(piece), std::string::npos) << piece << " in\n" << report;
  }
  const auto told = lines();
  ASSERT_EQ(told.size(), 5U);
  EXPECT_EQ(told[0]["update"], 7);
  EXPECT_EQ(told[0]["cause"], "not_finite");
  EXPECT_EQ(told[0]["first"][0]["rank"], 1);
  EXPECT_EQ(told[0]["first"][0]["in"], "the gradient of stem.0.weight");
  EXPECT_EQ(told[0]["first"][0]["images"], (std::vector<int>{4711, 5}));
  EXPECT_TRUE(told[0]["grad_norm"].is_null());
  EXPECT_EQ(told[1]["in_a_row"], 2);
  EXPECT_EQ(told[2]["cause"], "reload");
  EXPECT_EQ(told[2]["folder"], "run/checkpoints/update-00000005");
}

// The loss scale is halved after each overflow. So overflows never lead to a reload, nor do they end a row of bad
// updates.
TEST_F(GuardTest, OverflowOfTheLossScaleDoesNotCount) {
  config.guard.max_skips_in_a_row = 2;
  auto g = guard();
  for (std::int64_t t = 1; t < 100; ++t) EXPECT_EQ(g.observe(t, bad(Cause::loss_scale)), Guard::Next::go_on);
  EXPECT_EQ(lines().size(), 99U);
  EXPECT_EQ(g.observe(100, bad(Cause::not_finite)), Guard::Next::go_on);
  EXPECT_EQ(g.observe(101, bad(Cause::loss_scale)), Guard::Next::go_on);
  EXPECT_EQ(g.observe(102, bad(Cause::not_finite)), Guard::Next::reload);
}

TEST_F(GuardTest, ALyingRankStopsTheRunOrIsWarnedOf) {
  try {
    guard().observe(6, bad(Cause::replay, 2));
    FAIL() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::device);
    EXPECT_TRUE(e.agreed());
    EXPECT_NE(std::string(e.what()).find("on rank 2 (node7)"), std::string::npos) << e.what();
    EXPECT_NE(e.remedy().find("node"), std::string::npos);
  }
  config.guard.replay_action = "warn";
  EXPECT_EQ(guard().observe(6, bad(Cause::replay, 2)), Guard::Next::go_on);
  EXPECT_EQ(lines().size(), 2U);
}

TEST_F(GuardTest, StateSurvivesACheckpointAndIsNotThereWhereThereIsNone) {
  config.guard.max_skips_in_a_row = 2;
  config.guard.max_reloads = 0;
  checkpoint::State state;
  guard().save(state);
  EXPECT_TRUE(state.guard.empty());
  auto first = guard();
  first.observe(1, bad(Cause::not_finite));
  first.save(state);
  Guard second(config, true, state);
  EXPECT_THROW(second.observe(2, bad(Cause::not_finite)), Error);

  config.guard.loss_z_score = 4;
  config.guard.loss_window = 10;
  auto third = guard();
  for (int i = 0; i < 10; ++i) third.observe(i + 1, good(3 + 0.1 * (i % 2)));
  third.save(state);
  EXPECT_FALSE(guard().refuses(5));
  const Guard fourth(config, true, state);
  EXPECT_TRUE(fourth.refuses(5));
  EXPECT_FALSE(fourth.refuses(3.1));
}

TEST_F(GuardTest, GivesUpWithoutACheckpointAndOnOtherRanksWithoutFiles) {
  Guard other(config, false);
  other.observe(1, bad(Cause::not_finite));
  EXPECT_THROW(other.give_up("there is no checkpoint to go back to"), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(LossWindow, FindsWhatIsFarAboveAndNothingElse) {
  LossWindow window(50);
  for (int i = 0; i < 49; ++i) {
    window.add(3 + 0.1 * std::sin(i));
    ASSERT_FALSE(window.outlier(1000, 4)) << "not filled yet";
  }
  window.add(3);
  // The sine's deviation is 0.071: four of them, and one more for the mean.
  EXPECT_FALSE(window.outlier(3.2, 4));
  EXPECT_TRUE(window.outlier(3.4, 4));
  EXPECT_FALSE(window.outlier(0, 4)) << "below is no harm";
  // It follows a loss that falls.
  for (int i = 0; i < 600; ++i) window.add(2 + 0.1 * std::sin(i));
  EXPECT_TRUE(window.outlier(3, 4));
  EXPECT_NEAR(window.state()[1], 2, 0.02);
  EXPECT_NEAR(std::sqrt(window.state()[2]), 0.0707, 0.01);
}

TEST(LossWindow, ALossThatDoesNotMoveHasNoOutliersByRounding) {
  LossWindow window(5);
  for (int i = 0; i < 20; ++i) window.add(2);
  EXPECT_FALSE(window.outlier(2.005, 4));
  EXPECT_TRUE(window.outlier(2.02, 4));
}

}  // namespace
}  // namespace seer::run
