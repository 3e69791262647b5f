// SPDX-License-Identifier: Apache-2.0
#include "seer/config/config.hpp"

#include <gtest/gtest.h>

#include "seer/base/error.hpp"

namespace seer::config {
namespace {

Difference find(const Comparison& comparison, const std::string& key) {
  for (const auto& d : comparison.differences) {
    if (d.key == key) return d;
  }
  return {};
}

TEST(Compare, EveryDifferenceIsListedOnceWithItsMeaning) {
  const Config before;
  EXPECT_TRUE(compare(to_toml(before), before).differences.empty());

  Config now;
  now.log.run_dir = "elsewhere";
  now.optimizer.kind = "sgd";
  now.schedule.epochs = 3;
  now.crops[0].size = 40;
  now.crops.push_back({1, 32, {0.1, 0.2}});
  const auto found = compare(to_toml(before), now);
  EXPECT_EQ(found.differences.size(), 4U + 3U);
  EXPECT_EQ(found.stored, before);
  EXPECT_TRUE(found.unknown.empty());
  EXPECT_EQ(find(found, "optimizer.kind").key, "optimizer.kind");
  EXPECT_EQ(find(found, "optimizer.kind").was, "\"lars\"");
  EXPECT_EQ(find(found, "optimizer.kind").is, "\"sgd\"");
  EXPECT_EQ(find(found, "optimizer.kind").change, Change::meaning);
  EXPECT_EQ(find(found, "log.run_dir").change, Change::free);
  EXPECT_EQ(find(found, "schedule.epochs").change, Change::length);
  EXPECT_EQ(find(found, "crops.0.size").is, "40");
  EXPECT_EQ(find(found, "crops.2.count").was, "nothing");
  const auto back = compare(to_toml(now), before);
  EXPECT_EQ(find(back, "crops.2.count").is, "nothing");
  EXPECT_EQ(back.stored->crops, now.crops);
}

TEST(Compare, KeysThatTheNewConfigurationDoesNotUseAreNoDifference) {
  Config before, now;
  before.swav.epsilon = 0.02;
  now.method.kind = "simclr";
  now.byol.hidden = 8;
  const auto found = compare(to_toml(before), now);
  ASSERT_EQ(found.differences.size(), 1U);
  EXPECT_EQ(found.differences[0].key, "method.kind");
  EXPECT_EQ(found.differences[0].change, Change::tensors);
  before.method.kind = now.method.kind = "byol";
  EXPECT_EQ(find(compare(to_toml(before), now), "byol.hidden").change, Change::tensors);
}

TEST(Compare, PathsAndKeysThatDependOnThemAreReadAsTheyWereWritten) {
  Config before;
  before.checkpoint.local_dir = "/local/$USER/%h";
  before.checkpoint.local_every_updates = 5;
  before.log.run_dir = "~nobody-of-this-name/x";
  const auto found = compare(to_toml(before), Config());
  ASSERT_TRUE(found.stored);
  EXPECT_EQ(*found.stored, before);
}

TEST(Compare, ConfigurationsOfOtherVersionsAreComparedAsFarAsBothKnow) {
  Config now;
  now.swav.epsilon = 0.03;
  auto text = to_toml(now);
  const auto drop = [&](const std::string& line) {
    const auto at = text.find(line);
    ASSERT_NE(at, std::string::npos);
    text.erase(at, line.size());
  };
  drop("epsilon = 0.03\n");
  drop("temperature = 0.1\n");  // the stored version does not know it, and it has its default
  text += "\n[later]\nnovelty = 3\n";
  const auto found = compare(text, now);
  EXPECT_TRUE(found.differences.empty());
  EXPECT_EQ(found.unknown, (std::vector<std::string>{"swav.epsilon = 0.03", "later.novelty = 3"}));
  ASSERT_TRUE(found.stored);
  EXPECT_EQ(found.stored->swav.epsilon, Config().swav.epsilon);

  const auto worse = compare("[swav]\nepsilon = -3.0\n", now);
  EXPECT_FALSE(worse.stored);
  EXPECT_EQ(find(worse, "swav.epsilon").was, "-3.0");
}

TEST(Compare, NamesCoverWhatTheyHoldAndOthersAreRefusedWithTheNearest) {
  EXPECT_TRUE(covers("optimizer", "optimizer.kind"));
  EXPECT_TRUE(covers("crops.0", "crops.0.size"));
  EXPECT_FALSE(covers("crops.1", "crops.10.size"));
  EXPECT_FALSE(covers("optimizer.kin", "optimizer.kind"));
  for (const char* name : {"optimizer", "optimizer.kind", "crops", "crops.3", "crops.3.size"}) {
    EXPECT_NO_THROW(require_name(name, "--allow-change")) << name;
  }
  for (const auto& [name, near] : {std::pair{"optimiser", "\"optimizer\""},
                                   {"optimizer.kinds", "\"optimizer.kind\""},
                                   {"crops.0.syze", "\"crops.size\""},
                                   {"epsilon", "\"swav.epsilon\""}}) {
    try {
      require_name(name, "--allow-change");
      ADD_FAILURE() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::input);
      EXPECT_NE(std::string(e.what()).find(near), std::string::npos) << e.what();
    }
  }
}

TEST(Continue, KeysNeedWeightsToStartFrom) {
  const auto refusal = [](const std::string& text) -> std::string {
    try {
      parse(text, "run.toml", {});
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto expect = [&](const std::string& text, const std::string& piece) {
    EXPECT_NE(refusal(text).find(piece), std::string::npos) << refusal(text);
  };
  expect("[continue]\nramp_updates = 5\n", "run.toml:2: continue.ramp_updates: found 5");
  expect("[continue]\nmomenta = false\n", "it has no effect where model.init_from = \"\"");
  const std::string from = "[model]\ninit_from = \"w.h5\"\n[continue]\nprototypes = \"kmeans\"\nramp_updates = 5\n";
  expect(from, "accepted");
  expect(from + "[method]\nkind = \"simclr\"\n", "method.kind = \"simclr\"");
  expect(from + "[data]\nsource = \"crops\"\n", "\"keep\" or \"random\" where data.source is not \"shards\"");
}

}  // namespace
}  // namespace seer::config
