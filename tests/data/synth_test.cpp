// SPDX-License-Identifier: Apache-2.0
#include "seer/data/pack.hpp"

#include <gtest/gtest.h>

#include <set>

namespace seer::data {
namespace {

TEST(Synth, ClassesAreAllDifferentAndNeighboursDifferInEverything) {
  std::set<std::string> names;
  for (std::int64_t c = 0; c < kSynthClasses; ++c) names.insert(synth_class_name(c));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kSynthClasses));
  EXPECT_EQ(synth_class_name(0), "stripes-disc-single");
  EXPECT_EQ(synth_class_name(1), "dots-square-pair");
}

TEST(Synth, AnImageIsAFunctionOfSeedAndIndex) {
  const auto a = synth_image(1, 7, 3, 33);
  EXPECT_EQ(a.width, 33);
  EXPECT_EQ(a.rgb.size(), 33U * 33U * 3U);
  EXPECT_EQ(synth_image(1, 7, 3, 33).rgb, a.rgb);
  EXPECT_NE(synth_image(1, 8, 3, 33).rgb, a.rgb);
  EXPECT_NE(synth_image(2, 7, 3, 33).rgb, a.rgb);
  EXPECT_NE(synth_image(1, 7, 4, 33).rgb, a.rgb);
}

// Raw pixels must not reveal the class: nearest neighbours on 8 x 8 pixels must stay below twice the chance level.
TEST(Synth, RawPixelsSayLittleAboutTheClass) {
  constexpr std::int64_t kClasses = 10, kTrain = 600, kTest = 200, kSide = 8;
  auto draw = [](std::uint64_t seed, std::int64_t i) {
    return synth_image(seed, static_cast<std::uint64_t>(i), i % kClasses, kSide);
  };
  std::vector<Image> train;
  for (std::int64_t i = 0; i < kTrain; ++i) train.push_back(draw(1, i));
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < kTest; ++i) {
    const auto image = draw(2, i);
    std::int64_t best = -1, best_distance = 0;
    for (std::int64_t t = 0; t < kTrain; ++t) {
      std::int64_t distance = 0;
      for (std::size_t k = 0; k < image.rgb.size(); ++k) {
        const std::int64_t d = image.rgb[k] - train[static_cast<std::size_t>(t)].rgb[k];
        distance += d * d;
      }
      if (best < 0 || distance < best_distance) {
        best = t;
        best_distance = distance;
      }
    }
    right += best % kClasses == i % kClasses ? 1 : 0;
  }
  EXPECT_LT(static_cast<double>(right) / kTest, 0.2);
}

}  // namespace
}  // namespace seer::data
