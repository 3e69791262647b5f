// SPDX-License-Identifier: Apache-2.0
// Figures without labels against closed forms and plain loops; method.md 8.7.
#include "seer/eval/quality.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "golden.hpp"
#include "nn/support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

std::vector<std::uint8_t> good(std::size_t n) {
  return std::vector<std::uint8_t>(n, 0);
}
Quality quality(const std::vector<float>& rows, std::int64_t d, const QualityOptions& options = {}) {
  const auto n = rows.size() / static_cast<std::size_t>(d);
  QualityMeter meter(d, n, options);
  meter.add(rows, good(n), 0);
  return meter.result(comm::Communicator::world());
}
double at(const std::vector<float>& rows, std::int64_t d, std::int64_t i, std::int64_t j) {
  return static_cast<double>(rows[static_cast<std::size_t>(i * d + j)]);
}
ExitCode code_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_TRUE(error.agreed());
    return error.code();
  }
  return ExitCode::ok;
}

/// Rows +-size[k] e_k: mean 0, second moments 2 size[k]^2, all others 0.
std::vector<float> crosses(const std::vector<double>& size) {
  const auto d = size.size();
  std::vector<float> rows(2 * d * d, 0.0F);
  for (std::size_t k = 0; k < d; ++k) {
    rows[2 * k * d + k] = static_cast<float>(size[k]);
    rows[(2 * k + 1) * d + k] = -static_cast<float>(size[k]);
  }
  return rows;
}

TEST(Quality, RankOfOrthonormalRowsIsTheirNumber) {
  constexpr std::size_t d = 37;
  for (const std::size_t n : {2, 11, 37}) {
    std::vector<float> rows(n * d, 0.0F);
    for (std::size_t i = 0; i < n; ++i) rows[i * d + i] = -3;  // any length
    const auto q = quality(rows, d);
    EXPECT_NEAR(q.rankme, static_cast<double>(n), 1e-9);
    EXPECT_NEAR(q.rankme_centred, static_cast<double>(n - 1), 1e-6) << "the mean takes one direction";
  }
}

TEST(Quality, RankOfAKnownSpectrum) {
  const std::vector<double> size = {4, 2, 1, 1};  // shares 1/2, 1/4, 1/8, 1/8
  const auto q = quality(crosses(size), 4);
  const double entropy = 0.5 * std::log(2) + 0.25 * std::log(4) + 0.25 * std::log(8);
  EXPECT_NEAR(q.rankme, std::exp(entropy), 1e-12);
  EXPECT_NEAR(q.rankme_centred, q.rankme, 1e-12);
}

TEST(Quality, ExponentOfAPowerLawIsFound) {
  for (const double alpha : {0.5, 1.0, 1.7}) {
    for (const std::size_t d : {3, 12, 64, 200}) {
      std::vector<double> size;
      for (std::size_t k = 1; k <= d; ++k) size.push_back(std::pow(static_cast<double>(k), -alpha / 2));
      const auto q = quality(crosses(size), static_cast<std::int64_t>(d));
      EXPECT_NEAR(q.alpha, alpha, 1e-6) << d;
      EXPECT_EQ(q.alpha_last, std::min<std::int64_t>(100, static_cast<std::int64_t>(d)));
      EXPECT_EQ(q.alpha_first, std::min<std::int64_t>(10, q.alpha_last / 2));
    }
  }
  // The fit is weighted by 1 / rank, so one that is no power law has this exponent (by numpy.polyfit, w = rank^-1/2).
  QualityOptions options;
  options.alpha_first = 1;
  const auto law = power_law({1, 0.5, 0.1}, 100, options);
  EXPECT_NEAR(law.alpha, 1.7795606, 1e-6);
  EXPECT_TRUE(std::isnan(power_law({1, 0}, 100, options).alpha)) << "one eigenvalue is no line";
}

TEST(Quality, DeviationAndUniformityEqualPlainLoops) {
  constexpr std::int64_t n = 29, d = 7;
  const auto rows = test::hash_fill(n * d, 3, 1.0);
  auto unit = rows;
  for (std::int64_t i = 0; i < n; ++i) {
    double square = 0;
    for (std::int64_t j = 0; j < d; ++j) square += at(rows, d, i, j) * at(rows, d, i, j);
    for (std::int64_t j = 0; j < d; ++j)
      unit[static_cast<std::size_t>(i * d + j)] = static_cast<float>(at(rows, d, i, j) / std::sqrt(square));
  }
  double deviation = 0, sum = 0;
  for (std::int64_t j = 0; j < d; ++j) {
    double mean = 0, variance = 0;
    for (std::int64_t i = 0; i < n; ++i) mean += at(unit, d, i, j) / n;
    for (std::int64_t i = 0; i < n; ++i) variance += std::pow(at(unit, d, i, j) - mean, 2) / n;
    deviation += std::sqrt(variance) / d;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      double square = 0;
      for (std::int64_t k = 0; k < d; ++k) square += std::pow(at(unit, d, i, k) - at(unit, d, j, k), 2);
      sum += std::exp(-2 * square);
    }
  }
  const auto q = quality(rows, d);
  EXPECT_NEAR(q.deviation, deviation, 1e-7);
  EXPECT_DOUBLE_EQ(q.deviation_expected, 1 / std::sqrt(7.0));
  EXPECT_NEAR(q.uniformity, std::log(sum / (n * (n - 1) / 2.0)), 1e-6);
  EXPECT_EQ(q.uniformity_images, n);
  EXPECT_EQ(quality(rows, d, {.uniformity_images = 10}).uniformity_images, 10) << "every third of 29";
}

// Class means +-between[k] e_k, and for each class 2 d views at +-within[j] e_j from its mean.
TEST(Quality, LidarOfKnownSpectra) {
  const std::vector<double> between = {3, 2, 1}, within = {0.5, 0.25, 1};
  constexpr std::size_t d = 3, classes = 2 * d, q = 2 * d;
  const auto centres = crosses(between), offsets = crosses(within);
  std::vector<float> rows;
  for (std::size_t c = 0; c < classes; ++c)
    for (std::size_t v = 0; v < q; ++v)
      for (std::size_t j = 0; j < d; ++j) rows.push_back(centres[c * d + j] + offsets[v * d + j]);
  QualityMeter meter(d, 6);
  meter.add(centres, good(classes), 0);
  meter.add_views(rows, good(classes), q);
  const auto found = meter.result(comm::Communicator::world());
  double sum = 0, entropy = 0;
  std::vector<double> values;
  for (std::size_t k = 0; k < d; ++k) {
    values.push_back(2 * between[k] * between[k] / (classes - 1) / (2 * within[k] * within[k] / (q - 1) + 1e-4));
    sum += values.back();
  }
  for (const double value : values) entropy -= value / sum * std::log(value / sum);
  EXPECT_NEAR(found.lidar, std::exp(entropy), 1e-9);
  EXPECT_EQ(found.view_images, 6);
  EXPECT_EQ(found.views, 6);
}

TEST(Quality, AlignmentIsTheMeanDistanceOfPairs) {
  constexpr std::int64_t images = 5, views = 3, d = 4;
  const auto rows = test::hash_fill(images * views * d, 9, 1.0);
  const auto unit = [&](std::int64_t row, std::int64_t j) {
    double square = 0;
    for (std::int64_t k = 0; k < d; ++k) square += at(rows, d, row, k) * at(rows, d, row, k);
    return at(rows, d, row, j) / std::sqrt(square);
  };
  double sum = 0;
  for (const std::int64_t i : {0, 1, 3, 4})  // image 2 does not decode
    for (std::int64_t v = 0; v < views; ++v)
      for (std::int64_t w = 0; w < v; ++w)
        for (std::int64_t j = 0; j < d; ++j) sum += std::pow(unit(i * views + v, j) - unit(i * views + w, j), 2);
  QualityMeter meter(d, images);
  auto bad = good(images);
  bad[2] = 1;
  meter.add(std::span(rows).first(images * d), bad, 0);
  meter.add_views(rows, bad, views);
  const auto q = meter.result(comm::Communicator::world());
  EXPECT_NEAR(q.alignment, sum / (4 * 3), 1e-12);
  EXPECT_EQ(q.images, 4);
  EXPECT_EQ(q.view_images, 4);
}

TEST(Quality, WithoutViewsThereIsNoLidar) {
  const auto q = quality(test::hash_fill(40, 1, 1.0), 4);
  EXPECT_TRUE(std::isnan(q.lidar));
  EXPECT_TRUE(std::isnan(q.alignment));
  EXPECT_EQ(q.views, 0);
}

TEST(Quality, RefusesWhatSaysNothing) {
  constexpr std::int64_t d = 5;
  std::vector<float> rows(20 * d, 0.3F);
  EXPECT_EQ(code_of([&] { quality(rows, d); }), ExitCode::numerics) << "all equal";
  rows.assign(rows.size(), 0.0F);
  EXPECT_EQ(code_of([&] { quality(rows, d); }), ExitCode::numerics) << "all zero";
  EXPECT_EQ(code_of([&] { quality(test::hash_fill(d, 1, 1.0), d); }), ExitCode::input) << "one image";
  rows[7] = std::numeric_limits<float>::infinity();
  QualityMeter meter(d, 20);
  EXPECT_THROW(meter.add(rows, good(20), 0), Error);
}

TEST(Prototypes, AreCountedByTheirNearestImages) {
  const std::vector<float> prototypes = {1, 0, 0, 1, -1, 0, 1, 0};  // the last equals the first
  const std::vector<float> rows = {2, 1, 3, 1, -1, 5, 9, 9, 5, 4};  // 0, 0, 1, bad, 0
  std::vector<std::uint8_t> bad = {0, 0, 0, 1, 0};
  PrototypeMeter meter(prototypes, 4);
  meter.add(rows, bad);
  const auto usage = meter.result(comm::Communicator::world());
  EXPECT_EQ(usage.images, 4);
  EXPECT_EQ(usage.prototypes, 4);
  EXPECT_EQ(usage.empty, 2);
  EXPECT_DOUBLE_EQ(usage.largest_share, 0.75);
  EXPECT_NEAR(usage.entropy, 0.75 * std::log(4.0 / 3) + 0.25 * std::log(4.0), 1e-15);
}

}  // namespace
}  // namespace seer::eval
