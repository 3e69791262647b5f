// SPDX-License-Identifier: Apache-2.0
// What mixup and CutMix draw, and that batches do not depend on the number of ranks.
#include "seer/method/mix.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "golden.hpp"

namespace seer::method {
namespace {

constexpr std::int64_t kDraws = 20000;

config::Config config_of(double mixup, double cutmix) {
  config::Config c;
  c.crops = {{1, 9, {0.2, 1.0}}};
  c.finetune.mixup = mixup;
  c.finetune.cutmix = cutmix;
  c.data.seed = 5;
  return c;
}

/// A batch of `rows` rows of 9 x 9 pixels, from row `first` of a global one.
struct Rows {
  std::vector<float> values;
  data::Batch batch;
  Rows(std::int64_t crops, std::int64_t images, std::int64_t first, std::int64_t all) {
    constexpr std::int64_t kRow = 9 * 9 * 3;
    const auto global = test::hash_fill(static_cast<std::size_t>(crops * all * kRow), 1, 1);
    for (std::int64_t crop = 0; crop < crops; ++crop) {
      const auto begin = global.begin() + (crop * all + first) * kRow;
      values.insert(values.end(), begin, begin + images * kRow);
    }
    batch.images = images;
    batch.groups.push_back({9, 0, static_cast<int>(crops), {values.data(), {crops * images, 9, 9, 3}}});
  }
};

TEST(MixChoice, HasTheMomentsOfBeta) {
  // Mean 1/2, variance 1 / (4 (2 alpha + 1)), fourth central moment 3 / (16 (2 alpha + 1) (2 alpha + 3)).
  for (const double alpha : {0.001, 0.1, 0.8, 1.0, 4.0}) {
    const Mix mix(config_of(alpha, 0), 4);
    double sum = 0, squares = 0, fourths = 0;
    for (std::int64_t update = 0; update < kDraws; ++update) {
      const double lambda = mix.choose(update).lambda;
      ASSERT_GE(lambda, 0);
      ASSERT_LE(lambda, 1);
      sum += lambda - 0.5;
      squares += std::pow(lambda - 0.5, 2);
      fourths += std::pow(lambda - 0.5, 4);
    }
    const double variance = 1 / (4 * (2 * alpha + 1)), fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3));
    EXPECT_NEAR(sum / kDraws, 0, 4 * std::sqrt(variance / kDraws)) << alpha;
    EXPECT_NEAR(squares / kDraws, variance, 4 * std::sqrt((fourth - variance * variance) / kDraws)) << alpha;
    EXPECT_NEAR(fourths / kDraws, fourth, 4 * std::sqrt(fourth / 16 / kDraws)) << alpha;
  }
}

TEST(MixChoice, CutsRectanglesOfTheRightArea) {
  const Mix mix(config_of(0, 1), 4);
  double sum = 0;
  for (std::int64_t update = 0; update < kDraws; ++update) {
    const auto choice = mix.choose(update);
    const auto& box = choice.box;
    ASSERT_TRUE(choice.cut);
    ASSERT_TRUE(box.left >= 0 && box.top >= 0 && box.left + box.width <= 9 && box.top + box.height <= 9);
    ASSERT_DOUBLE_EQ(choice.lambda, 1 - static_cast<double>(box.width * box.height) / 81);
    sum += 1 - choice.lambda;
  }
  // timm's rand_bbox with a lambda U(0, 1) on 9 x 9 pixels, over all sizes and centres: half = floor(floor(9 sqrt(u)) /
  // 2).
  double wanted = 0;
  for (int side = 0; side <= 8; ++side) {
    const double probability = (std::pow(side + 1, 2) - std::pow(side, 2)) / 81;
    double length = 0;
    for (int centre = 0; centre < 9; ++centre)
      length += std::min(centre + side / 2, 9) - std::max(centre - side / 2, 0);
    wanted += probability * std::pow(length / 9 / 9, 2);
  }
  EXPECT_NEAR(sum / kDraws, wanted, 4 * 0.21 / std::sqrt(kDraws));
}

TEST(MixChoice, ObeysProbabilityAndSwitch) {
  auto c = config_of(0.2, 1);
  c.finetune.mix_probability = 0.6;
  c.finetune.mix_switch = 0.25;
  const Mix mix(c, 4);
  int cuts = 0, blends = 0;
  for (std::int64_t update = 0; update < kDraws; ++update) {
    const auto choice = mix.choose(update);
    (choice.cut ? cuts : blends) += choice.cut || choice.lambda < 1 ? 1 : 0;
  }
  EXPECT_NEAR(cuts, 0.15 * kDraws, 4 * std::sqrt(0.15 * 0.85 * kDraws));
  EXPECT_NEAR(blends, 0.45 * kDraws, 4 * std::sqrt(0.25 * kDraws));
  EXPECT_FALSE(Mix(config_of(0, 0), 4).on());
  EXPECT_EQ(Mix(config_of(0, 0), 4).choose(3).lambda, 1);
  auto other = c;
  other.data.seed = 6;
  EXPECT_NE(Mix(other, 4).choose(0).lambda, mix.choose(0).lambda);
}

TEST(Mix, IsTheSameOnAnyNumberOfRanks) {
  device::Queue queue;
  bool seen[2] = {};
  for (std::int64_t update = 0; update < 12; ++update) {
    Rows all(2, 8, 0, 8);
    const auto before = all.values;
    Mix one(config_of(0.8, 1), 8);
    one.apply(queue, all.batch, update);
    EXPECT_EQ(all.values == before, one.lambda() == 1);  // a small rectangle may be empty
    seen[one.choose(update).cut ? 1 : 0] = true;
    for (std::int64_t rank = 0; rank < 4; ++rank) {
      Rows part(2, 2, 2 * rank, 8);
      Mix mine(config_of(0.8, 1), 2);
      mine.apply(queue, part.batch, update);
      EXPECT_EQ(mine.lambda(), one.lambda());
      constexpr std::int64_t kPart = 2 * 9 * 9 * 3;
      for (std::int64_t crop = 0; crop < 2; ++crop)
        for (std::int64_t i = 0; i < kPart; ++i)
          ASSERT_EQ(part.values[static_cast<std::size_t>(crop * kPart + i)],
                    all.values[static_cast<std::size_t>((crop * 4 + rank) * kPart + i)]);
    }
  }
  EXPECT_TRUE(seen[0] && seen[1]);
}

TEST(Mix, LeavesAnImageWithoutPartner) {
  device::Queue queue;
  Rows rows(2, 3, 0, 3);
  const auto before = rows.values;
  Mix mix(config_of(0.8, 0), 3);
  EXPECT_EQ(mix.partner(0), 1);
  EXPECT_EQ(mix.partner(1), 0);
  EXPECT_EQ(mix.partner(2), 2);
  mix.apply(queue, rows.batch, 0);
  constexpr std::size_t kRow = 9 * 9 * 3;
  for (std::size_t row = 0; row < 6; ++row) {
    for (std::size_t i = 0; i < kRow; ++i) {
      const std::size_t image = row % 3, other = image == 2 ? row : (row / 3) * 3 + (image ^ 1);
      const double wanted = mix.lambda() * static_cast<double>(before[row * kRow + i]) +
                            (1 - mix.lambda()) * static_cast<double>(before[other * kRow + i]);
      ASSERT_NEAR(rows.values[row * kRow + i], wanted, 1e-6);
    }
  }
}

TEST(Mix, RefusesCutMixOfCropsOfSeveralSizes) {
  auto c = config_of(0.2, 1);
  c.crops.push_back({1, 8, {0.2, 1.0}});
  EXPECT_THROW(Mix(c, 4), Error);
  c.finetune.cutmix = 0;
  EXPECT_NO_THROW(Mix(c, 4));
}

}  // namespace
}  // namespace seer::method
