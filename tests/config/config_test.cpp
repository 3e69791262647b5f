// SPDX-License-Identifier: Apache-2.0
#include "seer/config/config.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <source_location>

#include "seer/base/error.hpp"

namespace seer::config {
namespace {

/// The error message of a configuration that must be refused, without the place in the source.
std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, "run.toml", overrides);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_TRUE(e.agreed()) << "all ranks read the same text";
    return e.what();
  }
  ADD_FAILURE() << "accepted: " << text;
  return "";
}

void expect_contains(const std::string& text, const std::string& piece,
                     std::source_location where = std::source_location::current()) {
  EXPECT_NE(text.find(piece), std::string::npos) << "line " << where.line() << ": no \"" << piece << "\" in\n" << text;
}

std::size_t count_lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
}

TEST(Config, DefaultsAreValidAndRoundTrip) {
  const Config standard;
  EXPECT_EQ(load("", {}), standard);
  EXPECT_EQ(parse("", "empty.toml", {}), standard);
  EXPECT_EQ(parse(to_toml(standard), "again", {}), standard);
}

TEST(Config, EveryKindOfValueRoundTripsToTheSameBits) {
  Config c;
  c.model.preset = "";
  c.model.depth = 13;
  c.model.w0 = 24;
  c.model.wa = 0;
  c.model.wm = 2.49;
  c.model.group_width = 8;
  c.model.init_from = "a \"quoted\" \\ path\twith\nbreaks \xc3\xa9";
  c.head.dims = {368, 128};
  c.head.batchnorm = true;
  c.swav.temperature = 0.1 + 0.2;
  c.swav.epsilon = 1e-300;
  c.optimizer.weight_decay = 5e-324;
  c.schedule.lr_peak = 1.7976931348623157e308;
  c.schedule.lr_start = 3;
  c.schedule.milestones = {};
  c.schedule.milestone_epochs = {0.1, 30};
  c.crops = {{1, 32, {1.0 / 3.0, 1}}, {1, 48, {0.5, 0.5}}, {3, 8, {1e-9, 0.7}}};
  c.augment.blur_radius = {0, 0};
  c.data.seed = 9007199254740993;  // not a double
  c.log.walltime = "123:59:59";
  const Config back = parse(to_toml(c), "again", {});
  EXPECT_EQ(back, c) << to_toml(back);
  c.schedule.milestones = {5, 5, 7};
  EXPECT_EQ(parse(to_toml(c), "again", {}), c);
}

TEST(Config, ReadsAFileAndIntegersWhereNumbersAreWanted) {
  const auto c = parse("[swav]\ntemperature = 1\n[[crops]]\ncount=3\nsize=64\nscale=[0.2, 1]\n[head]\ndims=[64,16]\n",
                       "run.toml", {});
  EXPECT_EQ(c.swav.temperature, 1.0);
  ASSERT_EQ(c.crops.size(), 1U);
  EXPECT_EQ(c.crops[0], (Crops{3, 64, {0.2, 1.0}}));
  EXPECT_EQ(c.head.dims, (std::vector<std::int64_t>{64, 16}));
  EXPECT_EQ(c.swav.epsilon, Config().swav.epsilon);
}

TEST(Config, UnknownKeysNameTheNearest) {
  EXPECT_EQ(
      refusal("[swav]\n\nepsilonn = 0.1\n"),
      "run.toml:3: swav.epsilonn: found an unknown key, allowed in [swav]: temperature, epsilon, "
      "sinkhorn_iterations, crops_for_assign, freeze_prototypes_updates, queue_length, queue_start_update, did you "
      "mean \"epsilon\"?");
  expect_contains(refusal("[modle]\npreset = \"tiny\"\n"),
                  "run.toml:1: modle: found an unknown section, allowed "
                  "model, method, head, swav,");
  expect_contains(refusal("[modle]\npreset = \"tiny\"\n"), "did you mean \"model\"?");
  expect_contains(refusal("global_batch = 3\n"), "run.toml:1: global_batch: found a key outside of the sections");
  expect_contains(refusal("global_batch = 3\n"), "did you mean \"data.global_batch\"?");
  expect_contains(refusal("[optimizer]\nlr_peak = 3\n"), "did you mean \"schedule.lr_peak\"?");
  expect_contains(refusal("[log]\nhang = 3\n"), "did you mean \"hang_seconds\"?");
  expect_contains(refusal("[[crops]]\nsize=64\n[[crops]]\nsize=64\nscal=[0.1,1]\n"),
                  "run.toml:5: crops.1.scal: found an unknown key, allowed in [[crops]]: count, size, scale, augment, "
                  "did you mean \"scale\"?");
}

TEST(Config, ATableOfCropsOverridesTheAugmentation) {
  const std::string text =
      "[[crops]]\ncount = 1\n[crops.augment]\nblur_probability = 1.0\nhue = 0.1\n[[crops]]\ncount = 1\n"
      "augment.grey_probability = 0.5\n[augment]\nhue = 0.05\ngrey_probability = 0.5\n";
  const auto config = parse(text, "run.toml", {});
  ASSERT_TRUE(config.crops[0].augment);
  EXPECT_EQ(config.crops[0].augment->blur_probability, 1.0);
  EXPECT_EQ(config.crops[0].augment->hue, 0.1);
  EXPECT_EQ(config.crops[0].augment->grey_probability, 0.5) << "as in [augment], which comes later in the file";
  EXPECT_FALSE(config.crops[1].augment) << "the same as [augment]";
  const auto toml = to_toml(config);
  EXPECT_EQ(parse(toml, "again", {}), config) << toml;
  EXPECT_NE(toml.find("augment.hue = 0.1\n"), std::string::npos);
  EXPECT_EQ(toml.find("augment.grey_probability"), std::string::npos) << toml;
  EXPECT_NE(to_table(config, Rows::changed).find("crops.0.augment.blur_probability"), std::string::npos);

  const auto by_hand = parse(text, "run.toml", {"crops.1.augment.hue=0.2", "augment.brightness=0.3"});
  EXPECT_EQ(by_hand.crops[1].augment->hue, 0.2);
  EXPECT_EQ(by_hand.crops[1].augment->brightness, 0.3);
  EXPECT_EQ(parse(text, "run.toml", {"crops=[{count=2,size=32}]"}).crops[0].augment, std::nullopt);

  expect_contains(refusal("[[crops]]\n[crops.augment]\nblurr = 1\n"),
                  "run.toml:3: crops.0.augment.blurr: found an unknown key");
  EXPECT_EQ(
      refusal("[[crops]]\n[crops.augment]\nmean = [0, 0, 0]\n"),
      "run.toml:3: crops.0.augment.mean: found a key that is the same for all crops, allowed the keys of [augment] "
      "but mean and std");
  expect_contains(refusal("[[crops]]\n[crops.augment]\nblurr_radius = 1\n"), "did you mean \"blur_radius\"?");
  expect_contains(refusal("", {"crops.1.augment.std=[1,1,1]"}),
                  "--set crops.1.augment.std: found a key that is the same for all crops");
  expect_contains(refusal("[[crops]]\naugment.hue = 0.6\n"),
                  "run.toml:2: crops.0.augment.hue: found 0.6, allowed a number from 0 to 0.5");
}

TEST(Config, WrongTypesAreRefused) {
  EXPECT_EQ(refusal("[swav]\ntemperature = \"warm\"\n"),
            "run.toml:2: swav.temperature: found \"warm\", allowed a number > 0");
  EXPECT_EQ(refusal("[head]\nprototypes = 30.0\n"),
            "run.toml:2: head.prototypes: found 30.0, allowed an integer from 2 to 100000000");
  EXPECT_EQ(refusal("[head]\nbatchnorm = 1\n"), "run.toml:2: head.batchnorm: found 1, allowed true or false");
  expect_contains(refusal("[log]\nrun_dir = 3\n"),
                  "run.toml:2: log.run_dir: found 3, allowed a string that is not empty");
  EXPECT_EQ(
      refusal("[log]\nwalltime = 01:00:00\n"),
      "run.toml:2: log.walltime: found 01:00:00, allowed minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, as "
      "Slurm, or \"\" for no limit");
  EXPECT_EQ(refusal("[head]\ndims = 64\n"),
            "run.toml:2: head.dims: found 64, allowed a list of 2 or more integers from 1 to 1000000");
  EXPECT_EQ(refusal("[head]\ndims = [64, 1.5]\n"),
            "run.toml:2: head.dims: found [64, 1.5], allowed a list of 2 or more integers from 1 to 1000000");
  EXPECT_EQ(refusal("[head.dims]\nx = 1\n"),
            "run.toml:1: head.dims: found a table, allowed a list of 2 or more integers from 1 to 1000000");
  expect_contains(refusal("model = \"tiny\"\n"), "run.toml:1: model: found \"tiny\", allowed a table [model]");
  EXPECT_EQ(refusal("[crops]\nsize = 64\n"),
            "run.toml:1: crops: found a table, allowed one or more tables [[crops]] with count, size, scale, augment");
  expect_contains(refusal("crops = []\n"), "run.toml:1: crops: found [], allowed one or more tables [[crops]]");
}

TEST(Config, ValuesOutOfRangeAreRefused) {
  const auto refuse = [](const std::string& section, const std::string& line, const std::string& expected) {
    EXPECT_EQ(refusal("[" + section + "]\n" + line + "\n"), "run.toml:2: " + section + "." + expected);
  };
  refuse("swav", "epsilon = 0", "epsilon: found 0, allowed a number > 0");
  refuse("swav", "epsilon = nan", "epsilon: found nan, allowed a number > 0");
  refuse("swav", "epsilon = inf", "epsilon: found inf, allowed a number > 0");
  refuse("optimizer", "momentum = 1.0", "momentum: found 1.0, allowed a number >= 0 and < 1");
  refuse("head", "dims = [64]", "dims: found [64], allowed a list of 2 or more integers from 1 to 1000000");
  refuse("augment", "hue = 0.6", "hue: found 0.6, allowed a number from 0 to 0.5");
  refuse("augment", "mean = [0.5]", "mean: found [0.5], allowed a list of 3 numbers");
  refuse("augment", "blur_radius = [2, 0.1]",
         "blur_radius: found [2, 0.1], allowed a list of 2 ascending numbers from 0 to 100");
  refuse("schedule", "milestones = [9, 3]", "milestones: found [9, 3], allowed a list of ascending integers >= 1");
  refuse("data", "seed = -1", "seed: found -1, allowed an integer >= 0");
  refuse("optimizer", "kind = \"larc\"", "kind: found \"larc\", allowed \"lars\", \"sgd\", did you mean \"lars\"?");
  expect_contains(refusal("[model]\npreset = \"400MF\"\n"), "did you mean \"400mf\"?");
  EXPECT_EQ(refusal("[[crops]]\ncount = 2\nscale = [0, 1]\n"),
            "run.toml:3: crops.0.scale: found [0, 1], allowed a list of 2 ascending numbers > 0 and <= 1");
  EXPECT_EQ(refusal("[[crops]]\nsize = 7\n"), "run.toml:2: crops.0.size: found 7, allowed an integer from 8 to 16384");
  for (const char* time : {":00:01", "0a:00:00", "1-", "1-2:3:4:5", "1:2:3:4", "-5", "4h", "1.5", " 5", "never"}) {
    expect_contains(refusal(fmt::format("[log]\nwalltime = \"{}\"\n", time)), "allowed minutes, mm:ss, hh:mm:ss");
  }
}

TEST(Config, LaterFeaturesAreNamedAndRefused) {
  EXPECT_EQ(refusal("[data]\nmode = \"stream\"\n"),
            "run.toml:2: data.mode: found \"stream\", which comes with a later version; allowed in this "
            "version: \"fixed\"");
}

TEST(Config, AnIntervalMayBeAWord) {
  const auto config = parse("[checkpoint]\nevery_updates = \"auto\"\n", "run.toml", {});
  EXPECT_EQ(config.checkpoint.every_updates, 0);
  expect_contains(to_toml(config), "every_updates = \"auto\"\n");
  EXPECT_EQ(parse(to_toml(config), "again.toml", {}), config);
  EXPECT_EQ(parse("", "run.toml", {"checkpoint.every_updates=auto"}), config);
  EXPECT_EQ(parse("[checkpoint]\nevery_updates = \"auto\"\n", "run.toml", {"checkpoint.every_updates=7"})
                .checkpoint.every_updates,
            7);
  EXPECT_EQ(refusal("[checkpoint]\nevery_updates = 0\n"),
            "run.toml:2: checkpoint.every_updates: found 0, allowed an integer >= 1 or \"auto\"");
  expect_contains(refusal("[checkpoint]\nevery_updates = \"often\"\n"), "found \"often\", allowed an integer >= 1");
}

TEST(Config, ValuesMustFitEachOther) {
  EXPECT_EQ(refusal("[[crops]]\ncount = 2\n[swav]\ncrops_for_assign = [0, 2]\n"),
            "run.toml:4: swav.crops_for_assign: found crop 2, allowed integers from 0 to 1: [[crops]] define 2 crops");
  EXPECT_EQ(refusal("[swav]\ncrops_for_assign = [1, 1]\n"),
            "run.toml:2: swav.crops_for_assign: found crop 1 twice, allowed each once");
  expect_contains(refusal("[[crops]]\ncount = 1\n[swav]\ncrops_for_assign = [0]\n"),
                  "run.toml:1: crops: found 1 crop in all, allowed 2 or more");
}

TEST(Config, KeysOfOtherMethodsAndTrunksMustHaveTheirDefaults) {
  EXPECT_EQ(refusal("[byol]\nmomentum = 0.9\n"),
            "run.toml:2: byol.momentum: found 0.9, allowed only its default 0.996, because it has no effect where "
            "method.kind = \"swav\"; leave it out");
  EXPECT_NO_THROW(parse("[byol]\nmomentum = 0.996\n", "run.toml", {}));
  expect_contains(refusal("", {"model.stem=small"}), "it has no effect where model.trunk = \"regnety\"");
  for (const char* key :
       {"data.test_shards=x", "data.fraction=0.1", "data.per_class=3", "data.subset_seed=1", "finetune.test_every=2"}) {
    expect_contains(refusal("", {key}), "because it has no effect where method.kind = \"swav\"");
    EXPECT_NO_THROW(parse("", "run.toml", {"method.kind=supervised", key}));
  }
  expect_contains(refusal("", {"method.kind=supervised", "data.fraction=0.1", "data.per_class=3"}),
                  "--set data.fraction: found 0.1, allowed 1 where data.per_class is given");
}

TEST(Config, ModelIsAPresetOrFiveNumbers) {
  const std::string five = "[model]\ndepth=13\nw0=24\nwa=36.44\nwm=2.49\ngroup_width=8\n";
  EXPECT_EQ(parse(five, "run.toml", {}).model.preset, "");
  EXPECT_EQ(parse("[model]\npreset = \"4gf\"\n", "run.toml", {}).model.preset, "4.0gf");
  expect_contains(refusal("[model]\npreset = \"\"\ndepth = 3\nwa = 1\n"),
                  "run.toml:2: model.preset: found a model without preset and without w0, wm, group_width");
  expect_contains(refusal("[model]\nw0 = 24\n"),
                  "run.toml:2: model.w0: found a model without preset and without depth, wa, wm, group_width");
  expect_contains(refusal(five + "preset = \"tiny\"\n"), "found a number beside model.preset = \"tiny\"");
  EXPECT_EQ(refusal("[model]\ndepth=0\nw0=20\nwa=1\nwm=1\ngroup_width=0\n"),
            "4 errors in the configuration (seer --help-config lists every key):\n"
            "  run.toml:2: model.depth: found 0, allowed an integer >= 1 where there is no preset\n"
            "  run.toml:3: model.w0: found 20, allowed a multiple of 8\n"
            "  run.toml:5: model.wm: found 1.0, allowed a number > 1 where there is no preset\n"
            "  run.toml:6: model.group_width: found 0, allowed an integer >= 1 where there is no preset");
}

TEST(Config, AllErrorsOfFileAndOverridesComeTogetherInTheOrderOfTheLines) {
  const std::string text = refusal(
      "[swav]\ntemperature = -1\nepsilonn = 3\n[augmnt]\nhue = 9\n[head]\nprototypes = \"many\"\n[[crops]]\nsize = 1\n",
      {"log.every=0", "data.sed=3"});
  EXPECT_EQ(count_lines(text), 8U) << text;
  std::size_t at = 0;
  for (const char* piece :
       {"7 errors in the configuration", "run.toml:2: swav.temperature", "run.toml:3: swav.epsilonn",
        "run.toml:4: augmnt", "run.toml:7: head.prototypes", "run.toml:9: crops.0.size", "--set log.every: found 0",
        "--set data.sed: found an unknown key"}) {
    at = text.find(piece, at);
    ASSERT_NE(at, std::string::npos) << piece << "\nin\n" << text;
  }
}

TEST(Config, SyntaxErrorsNameTheLine) {
  expect_contains(refusal("[swav]\nepsilon = 0.1\ntemperature = = 3\n"), "run.toml:3: not TOML: ");
  expect_contains(refusal("[swav]\nepsilon = 0.1\nepsilon = 0.2\n"), "run.toml:3: not TOML: ");
  const std::string both = refusal("[swav\n", {"log.every=0"});
  expect_contains(both, "run.toml:1: not TOML: ");
  expect_contains(both, "--set log.every");
}

TEST(Config, MissingFileIsAnInputErrorNamingThePath) {
  for (const std::string& path :
       {std::string(SEER_TEST_DATA "/knn.h5/run.toml"), std::filesystem::temp_directory_path().string()}) {
    try {
      load(path, {});
      ADD_FAILURE() << path;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::input);
      expect_contains(e.what(), path + ": cannot read the configuration file");
    }
  }
}

TEST(Config, OverridesSetValues) {
  const auto c = parse("[model]\npreset = \"400mf\"\n", "run.toml",
                       {"model.preset=tiny", "crops.0.size=64", "crops.1.scale=[0.2, 0.4]", "swav.epsilon=1",
                        "head.dims=[64,32]", "log.run_dir=2024", "log.walltime=01:30:00", "data.shards=a b/*.h5",
                        "model.init_from=", "head.batchnorm=true", "swav.epsilon=0.03", "data.source=\"crops\""});
  EXPECT_EQ(c.model.preset, "tiny");
  EXPECT_EQ(c.crops[0], (Crops{2, 64, {0.14, 1.0}}));
  EXPECT_EQ(c.crops[1], (Crops{4, 96, {0.2, 0.4}}));
  EXPECT_EQ(c.swav.epsilon, 0.03);
  EXPECT_EQ(c.head.dims, (std::vector<std::int64_t>{64, 32}));
  EXPECT_EQ(c.log.run_dir, "2024");
  EXPECT_EQ(c.log.walltime, "01:30:00");
  EXPECT_EQ(c.data.shards, "a b/*.h5");
  EXPECT_EQ(c.data.source, "crops");
  EXPECT_TRUE(c.head.batchnorm);
  const auto all =
      parse("", "run.toml", {"crops=[{count=2,size=64,scale=[0.2,1.0]},{count=1,size=32,scale=[0.1,0.2]}]"});
  ASSERT_EQ(all.crops.size(), 2U);
  EXPECT_EQ(all.crops[0], (Crops{2, 64, {0.2, 1.0}}));
  EXPECT_EQ(all.crops[1], (Crops{1, 32, {0.1, 0.2}}));
}

TEST(Config, OverridesAreRefusedByTheirName) {
  const auto refuse = [](const std::string& assignment, const std::string& expected) {
    expect_contains(refusal("", {assignment}), expected);
  };
  refuse("swav.epsilon=abc", "--set swav.epsilon: found \"abc\", allowed a number > 0");
  refuse("swav.epsilon=", "--set swav.epsilon: found \"\", allowed a number > 0");
  refuse("swav.epsilon", "--set swav.epsilon: found no \"=\", allowed section.key=value");
  refuse("swav.epsilonn=1", "--set swav.epsilonn: found an unknown key, allowed in [swav]: temperature, epsilon,");
  refuse("swaf.epsilon=1", "--set swaf.epsilon: found an unknown section");
  refuse("epsilon=1", "did you mean \"swav.epsilon\"?");
  refuse("crops.2.size=64",
         "--set crops.2.size: found crops.2.size, allowed crops.0.{count, size, scale, augment} to crops.1.");
  refuse("crops.x.size=64", "--set crops.x.size: found crops.x.size");
  refuse("crops.0=64", "--set crops.0: found crops.0");
  refuse("crops.0.syze=64", "did you mean \"crops.0.size\"?");
  refuse("crops=3", "--set crops: found 3, allowed one or more tables [[crops]]");
  refuse("crops=[{count=0}]", "--set crops.0.count: found 0, allowed an integer from 1 to 1000");
  refuse("log.every=3\nhead.prototypes=4", "--set log.every: found \"3\\u000Ahead.prototypes=4\"");
  refuse("log.run_dir=\xff\xfe", "--set log.run_dir: found text that is not UTF-8");
  refuse("data.mode=stream", "--set data.mode: found \"stream\", which comes with a later version");
  refuse("precision.compute=fp8", "--set precision.compute: found \"fp8\", allowed \"fp32\", \"bf16\", \"fp16_o1\"");
}

TEST(Config, WalltimeIsReadAsSlurmReadsIt) {
  for (const auto& [text, seconds] : {std::pair{"", 0},
                                      {"90", 90 * 60},
                                      {"10:30", 630},
                                      {"90:00", 5400},
                                      {"01:30:00", 5400},
                                      {"123:59:59", 446399},
                                      {"1:0:0", 3600},
                                      {"0-0:0:1", 1},
                                      {"5:70", 370},
                                      {"0", 0},
                                      {"UNLIMITED", 0},
                                      {"1-0", 86400},
                                      {"2-12", 216000},
                                      {"1-02:03", 93780},
                                      {"1-02:03:04", 93784}}) {
    const auto c = parse("", "", {fmt::format("log.walltime={}", text)});
    EXPECT_EQ(c.log.walltime, text);
    EXPECT_EQ(walltime_seconds(text), seconds) << text;
  }
}

TEST(Config, HomesAreExpandedAndVariablesRefusedInEveryPath) {
  setenv("HOME", "/home/me", 1);
  const auto c = parse("[data]\nshards = \"~/a/*.h5, ~,b~,~root/c\"\n", "run.toml",
                       {"log.run_dir=~/runs/x", "model.init_from=~/w.h5", "checkpoint.local_dir=~", "data.seed=1"});
  EXPECT_EQ(c.log.run_dir, "/home/me/runs/x");
  EXPECT_EQ(c.model.init_from, "/home/me/w.h5");
  EXPECT_EQ(c.checkpoint.local_dir, "/home/me");
  EXPECT_EQ(c.data.shards.rfind("/home/me/a/*.h5, /home/me,b~,/", 0), 0U) << c.data.shards;
  EXPECT_EQ(parse(to_toml(c), "again", {}), c);
  for (const char* key : {"log.run_dir", "data.shards", "model.init_from", "checkpoint.local_dir"}) {
    for (const char* bad : {"~no-such-user/x", "$SCRATCH/x", "/a/${USER}"}) {
      expect_contains(refusal("", {fmt::format("{}={}", key, bad)}),
                      fmt::format("--set {}: found \"{}\", allowed a ", key, bad));
    }
    EXPECT_NO_THROW(parse("", "", {fmt::format("{}=a$/1$2~", key)})) << key;
  }
}

TEST(Config, TableMarksWhatDiffersFromTheDefault) {
  auto c = parse("", "", {"model.preset=tiny", "crops.0.size=64"});
  const std::string table = to_table(c);
  std::size_t marks = 0;
  for (std::size_t at = 0; (at = table.find("  *\n", at)) != std::string::npos; ++at) ++marks;
  EXPECT_EQ(marks, 2U) << table;
  expect_contains(table, "  model.preset ");
  expect_contains(table, "  crops.1.scale ");
  c.crops.pop_back();
  expect_contains(to_table(c), "1 tables");

  c.schedule.epochs = 3;
  const auto brief = to_table(c, Rows::changed);
  EXPECT_EQ(count_lines(brief), 6U) << brief;
  expect_contains(brief, "  schedule.epochs  3.0\n");
  expect_contains(to_table(c), "follows from schedule.epochs");
}

TEST(Config, HelpNamesEveryKeyOfACompleteFile) {
  const std::string help = describe_keys(), file = to_toml(Config());
  std::size_t keys = 0, from = 0;
  for (std::size_t to; (to = file.find('\n', from)) != std::string::npos; from = to + 1) {
    const std::string line = file.substr(from, to - from);
    const auto equals = line.find(" = ");
    if (equals == std::string::npos) continue;
    ++keys;
    expect_contains(help, "\n  " + line.substr(0, equals + 3));
  }
  EXPECT_GT(keys, 60U);
}

TEST(Config, EveryInputFileLoads) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SEER_SOURCE_DIR "/inputs")) {
    if (entry.path().extension() != ".toml") continue;
    ++files;
    const auto config = load(entry.path().string(), {});
    EXPECT_EQ(parse(to_toml(config), "again", {}), config) << entry.path();
    EXPECT_EQ(config.log.run_dir.rfind("runs/", 0), 0U) << entry.path();
  }
  EXPECT_GE(files, 6U);
}

}  // namespace
}  // namespace seer::config
