// SPDX-License-Identifier: Apache-2.0
// Texts of features, and poolings against naive loops and the regions of the R-MAC paper.
#include "seer/eval/pooling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.hpp"
#include "seer/eval/feature.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

TEST(FeatureText, IsReadAndShortened) {
  const auto features = parse_features("pooled,res5:1x1,head+res4:2x3,res4:gem2.5,res3:gem,res3:rmac,res2:map");
  std::vector<std::string> texts;
  for (const auto& feature : features) texts.push_back(feature.text);
  EXPECT_EQ(texts, (std::vector<std::string>{"trunk", "res5", "head+res4:2x3", "res4:gem2.5", "res3:gem3", "res3:rmac3",
                                             "res2:map"}));
  EXPECT_EQ(features[2].parts.size(), 2U);
  EXPECT_EQ(features[2].parts[1],
            (FeaturePart{.tap = "res4", .pool = Pool::average, .height = 2, .width = 3, .power = 3, .levels = 3}));
  EXPECT_EQ(features[3].parts[0].power, 2.5);
  EXPECT_TRUE(features[6].is_map());
  EXPECT_TRUE(features[2].uses("head"));
  EXPECT_FALSE(features[2].uses("trunk"));
}

TEST(FeatureText, WhatCannotBeMeantIsRefused) {
  for (const char* text : {"",           "trunk,",    "trunk:gem3",     "head:2x2",          "res5:",
                           "res5:x",     "res5:0x1",  "res5:2x",        "res5:2x2x2",        "res5:gem0",
                           "res5:gem-1", "res5:gemm", "res5:geminf",    "res5:rmac0",        "res5:rmac2.5",
                           "res5:sum",   "res5+",     "res5:map+trunk", "res4:map,res5:map", "res5,res5:1x1",
                           ":2x2"}) {
    try {
      parse_features(text);
      ADD_FAILURE() << "\"" << text << "\" was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input) << text;
      EXPECT_NE(error.message().find("res5:2x1"), std::string::npos) << "the forms are shown: " << error.message();
    }
  }
}

struct Sizes {
  std::int64_t n, h, w, c;
};

class Pooling : public testing::TestWithParam<Sizes> {
 protected:
  void SetUp() override {
    const auto [n, h, w, c] = GetParam();
    values_ = test::hash_fill(static_cast<std::size_t>(n * h * w * c), 7, 1.0);
    map_ = {.data = values_.data(), .shape = {n, h, w, c}};
  }
  double at(std::int64_t i, std::int64_t y, std::int64_t x, std::int64_t k) const {
    const auto [n, h, w, c] = GetParam();
    return static_cast<double>(values_[static_cast<std::size_t>(((i * h + y) * w + x) * c + k)]);
  }
  /// Pools into rows with three values more than needed, which must stay.
  std::vector<float> pooled(const FeaturePart& part) const {
    const auto width = pooled_width(part, map_.shape), stride = width + 3;
    std::vector<float> rows(static_cast<std::size_t>(map_.shape.n * stride), -7.0F), out;
    pool(part, map_, rows.data(), stride);
    for (std::int64_t i = 0; i < map_.shape.n; ++i) {
      const auto row = rows.begin() + i * stride;
      out.insert(out.end(), row, row + width);
      EXPECT_TRUE(std::all_of(row + width, row + stride, [](float x) { return x == -7.0F; }));
    }
    return out;
  }
  void expect(const FeaturePart& part, const std::vector<double>& wanted) const {
    const auto found = pooled(part);
    ASSERT_EQ(found.size(), wanted.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(static_cast<double>(found[i]), wanted[i], 2e-6 * std::max(1.0, std::abs(wanted[i]))) << i;
  }

 private:
  std::vector<float> values_;
  device::Tensor map_;
};

TEST_P(Pooling, AverageOverAnyGrid) {
  const auto [n, h, w, c] = GetParam();
  for (const auto& [rows, columns] : {std::pair{1L, 1L}, {2L, 3L}, {3L, 2L}, {7L, 5L}, {9L, 1L}}) {
    std::vector<double> wanted;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t a = 0; a < rows; ++a) {
        for (std::int64_t b = 0; b < columns; ++b) {
          for (std::int64_t k = 0; k < c; ++k) {
            double sum = 0;
            int count = 0;
            for (std::int64_t y = 0; y < h; ++y) {
              for (std::int64_t x = 0; x < w; ++x) {
                // A pixel belongs to a cell if it overlaps it.
                const auto overlaps = [](std::int64_t pixel, std::int64_t side, std::int64_t cell, std::int64_t cells) {
                  return pixel * cells < (cell + 1) * side && (pixel + 1) * cells > cell * side;
                };
                if (!overlaps(y, h, a, rows) || !overlaps(x, w, b, columns)) continue;
                sum += at(i, y, x, k);
                ++count;
              }
            }
            wanted.push_back(sum / count);
          }
        }
      }
    }
    expect({.tap = "res5", .height = rows, .width = columns}, wanted);
  }
}

TEST_P(Pooling, GeneralisedMean) {
  const auto [n, h, w, c] = GetParam();
  for (const double power : {1.0, 3.0, 2.5, 12.0}) {
    std::vector<double> wanted;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t k = 0; k < c; ++k) {
        double sum = 0;
        for (std::int64_t y = 0; y < h; ++y)
          for (std::int64_t x = 0; x < w; ++x) sum += std::pow(std::max(at(i, y, x, k), 1e-6), power);
        wanted.push_back(std::pow(sum / static_cast<double>(h * w), 1 / power));
      }
    }
    expect({.tap = "res5", .pool = Pool::gem, .power = power}, wanted);
  }
}

TEST_P(Pooling, RmacSumsTheRegionsMaximaOfLengthOne) {
  const auto [n, h, w, c] = GetParam();
  std::vector<double> wanted(static_cast<std::size_t>(n * c), 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    for (const auto& region : rmac_regions(h, w, 3)) {
      std::vector<double> maxima(static_cast<std::size_t>(c), -1e30);
      double square = 0;
      for (std::int64_t k = 0; k < c; ++k) {
        auto& most = maxima[static_cast<std::size_t>(k)];
        for (std::int64_t y = 0; y < region.side; ++y)
          for (std::int64_t x = 0; x < region.side; ++x)
            most = std::max(most, at(i, region.top + y, region.left + x, k));
        square += most * most;
      }
      for (std::int64_t k = 0; k < c; ++k)
        wanted[static_cast<std::size_t>(i * c + k)] += maxima[static_cast<std::size_t>(k)] / std::sqrt(square);
    }
  }
  expect({.tap = "res5", .pool = Pool::rmac}, wanted);
}

INSTANTIATE_TEST_SUITE_P(Maps, Pooling,
                         testing::Values(Sizes{2, 7, 7, 5}, Sizes{1, 5, 9, 3}, Sizes{3, 8, 3, 4}, Sizes{2, 1, 1, 6}));

/// The formula of Tolias et al. 2016 as their code computes it, in floating point.
std::vector<Region> published_regions(std::int64_t height, std::int64_t width, int levels) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width), shorter = std::min(h, w);
  int index = 0;
  float best = 1e9F;
  const auto side_of_map = static_cast<float>(shorter);
  for (int i = 0; i < 6; ++i) {
    const float b = static_cast<float>(std::max(h, w) - shorter) / static_cast<float>(i + 1);
    const float off = std::abs((side_of_map * side_of_map - side_of_map * b) / (side_of_map * side_of_map) - 0.4F);
    if (off < best) best = off, index = i + 1;
  }
  const int more_columns = height < width ? index : 0, more_rows = height > width ? index : 0;
  std::vector<Region> out;
  for (int l = 1; l <= levels; ++l) {
    const double side = std::floor(2 * shorter / (l + 1)), half = std::floor(side / 2 - 1);
    const auto place = [&](int i, int more, double whole) {
      const double b = l + more - 1 > 0 ? (whole - side) / (l + more - 1) : 0;
      return static_cast<std::int64_t>(std::floor(half + b * i + 1e-9) - half);
    };
    if (side < 1) continue;
    for (int i = 0; i < l + more_rows; ++i)
      for (int j = 0; j < l + more_columns; ++j)
        out.push_back({place(i, more_rows, h), place(j, more_columns, w), static_cast<std::int64_t>(side)});
  }
  return out;
}

TEST(Rmac, RegionsAreThePapers) {
  EXPECT_EQ(rmac_regions(7, 7, 3).size(), 14U) << "1 + 4 + 9 on a square";
  EXPECT_EQ(
      rmac_regions(7, 10, 2),
      (std::vector<Region>{{0, 0, 7}, {0, 3, 7}, {0, 0, 4}, {0, 3, 4}, {0, 6, 4}, {3, 0, 4}, {3, 3, 4}, {3, 6, 4}}));
  EXPECT_EQ(rmac_regions(1, 1, 3), (std::vector<Region>{{0, 0, 1}}));
  for (std::int64_t h = 1; h < 33; ++h)
    for (std::int64_t w = 1; w < 33; w += 3)
      EXPECT_EQ(rmac_regions(h, w, 4), published_regions(h, w, 4)) << h << " x " << w;
}

}  // namespace
}  // namespace seer::eval
