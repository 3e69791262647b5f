// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/feature_table.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

FeatureInfo info() {
  FeatureInfo out;
  out.source = "runs/a/update-00000020";
  out.layer = "trunk";
  out.recipe = {.weights = "00ab",
                .update = 20,
                .resize = 256,
                .crop = 224,
                .mean = "0.5 0.5 0.5",
                .std = "1 1 1",
                .recalibration_images = 0,
                .recalibration_data = "none",
                .precision = "fp32"};
  return out;
}

TEST(Recipe, SaysHowImagesWerePrepared) {
  const auto of = [](std::int64_t resize, std::int64_t crop) {
    Recipe recipe;
    recipe.resize = resize;
    recipe.crop = crop;
    return preparation(recipe);
  };
  EXPECT_EQ(of(256, 224), "shorter side 256 pixels, crop 224");
  EXPECT_EQ(of(0, 224), "whole, squashed to 224 x 224 pixels");
  EXPECT_EQ(of(64, 0), "whole, longer side at most 64 pixels");
  EXPECT_EQ(of(-1, -1), "not known");
}

std::string refusal(const FeatureInfo& train, const FeatureInfo& test) {
  try {
    require_alike(train, "train.h5", test, "test.h5");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.message();
  }
  return "";
}

bool warned_of(const std::string& piece) {
  const auto warnings = log::warnings();
  return std::ranges::any_of(warnings, [&](const auto& text) { return text.find(piece) != std::string::npos; });
}

TEST(Recipe, TablesThatWereComputedAlikeAreTaken) {
  auto other = info();
  other.source = "copies/a";
  other.recipe.update = -1;  // not recorded in a weights file
  EXPECT_EQ(refusal(info(), other), "");
  EXPECT_FALSE(warned_of("train.h5"));
}

TEST(Recipe, EveryFieldThatDiffersIsNamedWithBothValues) {
  auto other = info();
  other.layer = "head";
  visit_fields(other.recipe, []<class Value>(auto*, auto*, Value& value) {
    if constexpr (std::is_same_v<Value, std::string>) {
      value += " other";
    } else {
      value += 7;
    }
  });
  const auto text = refusal(info(), other);
  for (const char* piece :
       {"train.h5", "test.h5", "runs/a/update-00000020", "layer trunk against head", "weights 00ab against 00ab other",
        "resize 256 against 263", "crop 224 against 231", "mean 0.5 0.5 0.5 against 0.5 0.5 0.5 other",
        "std 1 1 1 against", "recalibration 0 against 7", "recalibration none against none other",
        "precision fp32 against fp32 other"}) {
    EXPECT_NE(text.find(piece), std::string::npos) << piece << " in " << text;
  }
}

TEST(Recipe, WhatOlderTablesDoNotTellIsAWarning) {
  auto older = info();
  older.recipe = {};
  EXPECT_EQ(refusal(info(), older), "");
  EXPECT_TRUE(warned_of("lacks what must be compared: checksum of the weights, resize, crop"));
  older.layer = "head";
  EXPECT_NE(refusal(info(), older).find("layer trunk against head"), std::string::npos);
}

TEST(ImageSets, FingerprintIsOfTheImagesInAnyOrder) {
  const auto world = comm::Communicator::world();
  ImageSetSum a, b, twice;
  const std::vector<std::uint64_t> one = {1, 0xffffffffffffffff, 7}, other = {7, 1, 0xffffffffffffffff};
  a.add(one);
  b.add(std::span(other).first(2));
  b.add(std::span(other).last(1));
  twice.add(one);
  twice.add(one);
  EXPECT_EQ(a.fingerprint(world), b.fingerprint(world));
  EXPECT_NE(a.fingerprint(world), twice.fingerprint(world));
  EXPECT_EQ(a.fingerprint(world).size(), 16U);
}

TEST(ImageSets, CommonImagesAreCountedAndWarnedOf) {
  const auto world = comm::Communicator::world();
  const std::vector<std::uint64_t> train = {5, 3, 9, 3}, some = {1, 3, 3, 2, 9}, none = {4};
  EXPECT_EQ(count_common(world, train, some), 3);
  EXPECT_EQ(count_common(world, train, none), 0);
  warn_of_common(world, train, "A", none, "B");
  EXPECT_FALSE(warned_of("training set A"));
  warn_of_common(world, train, "A", some, "B");
  EXPECT_TRUE(warned_of("3 of the 5 images of the test set B are in the training set A as well"));
  warn_of_common(world, train, "A", train, "C");
  EXPECT_TRUE(warned_of("training set A and test set C are the same 4 images"));
}

TEST(FeatureFiles, LabelsBelowMinusOneAreRefused) {
  const auto world = comm::Communicator::world();
  const auto path = (std::filesystem::temp_directory_path() / fmt::format("seer-labels-{}.h5", ::getpid())).string();
  for (const std::int32_t label : {-1, -7}) {
    auto table = test::slice({1, 2}, {0, label}, world);
    table.checksum = {1, 2};
    FeatureFileWriter file(world, path, table.info);
    file.write(table);
    file.close();
    std::string refused;
    try {
      EXPECT_EQ(read_features(world, path).info.name(), path + " (features of a table)");
    } catch (const Error& error) {
      refused = error.message();
    }
    EXPECT_EQ(refused.find(path + ": label -7, wanted -1 or more") != std::string::npos, label == -7) << refused;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace seer::eval
