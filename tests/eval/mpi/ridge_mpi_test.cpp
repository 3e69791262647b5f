// SPDX-License-Identifier: Apache-2.0
// The closed-form classifier against a plain solution of its equations, on any number of ranks.
#include "seer/eval/ridge.hpp"

#include <cmath>
#include <numeric>

#include "../support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr std::size_t kDimension = 6;
constexpr std::int32_t kClasses = 3;

struct Set {
  std::vector<float> values;
  std::vector<std::int32_t> labels;
};
/// Noise around one centre per class, with features of different sizes; the last feature is constant.
Set some(std::size_t n, std::uint64_t seed, double noise) {
  Random random(seed, Purpose::test);
  Set out;
  for (std::size_t i = 0; i < n; ++i) {
    const auto label = static_cast<std::int32_t>(i * 5 % kClasses);
    for (std::size_t j = 0; j + 1 < kDimension; ++j) {
      const double centre = std::sin(static_cast<double>(label * 7 + static_cast<std::int32_t>(j) * 3));
      out.values.push_back(static_cast<float>((centre + noise * random.normal()) * std::pow(10, j)));
    }
    out.values.push_back(3);
    out.labels.push_back(i % 11 == 0 ? -1 : label);
  }
  return out;
}

/// Gradient descent on the same loss, on standardised features; far slower and simpler.
double plain(const Set& train, const Set& test, double strength) {
  std::array<double, kDimension> mean{}, deviation{};
  double n = 0;
  const auto each = [](const Set& set, const auto& use) {
    for (std::size_t i = 0; i < set.labels.size(); ++i)
      if (set.labels[i] >= 0) use(set.values.data() + i * kDimension, set.labels[i]);
  };
  each(train, [&](const float* x, int) {
    n += 1;
    for (std::size_t j = 0; j < kDimension; ++j) mean[j] += static_cast<double>(x[j]);
  });
  for (auto& m : mean) m /= n;
  each(train, [&](const float* x, int) {
    for (std::size_t j = 0; j < kDimension; ++j) deviation[j] += std::pow(static_cast<double>(x[j]) - mean[j], 2) / n;
  });
  const auto standard = [&](const float* x, std::size_t j) {
    return deviation[j] > 1e-9 ? (static_cast<double>(x[j]) - mean[j]) / std::sqrt(deviation[j]) : 0;
  };
  double weights[kClasses][kDimension] = {}, bias[kClasses] = {};
  const auto score = [&](const float* x, int c) {
    double sum = bias[c];
    for (std::size_t j = 0; j < kDimension; ++j) sum += weights[c][j] * standard(x, j);
    return sum;
  };
  for (int step = 0; step < 3000; ++step) {
    double slope[kClasses][kDimension] = {}, bias_slope[kClasses] = {};
    each(train, [&](const float* x, int label) {
      for (int c = 0; c < kClasses; ++c) {
        const double error = score(x, c) - (c == label ? 1 : 0);
        bias_slope[c] += error / n;
        for (std::size_t j = 0; j < kDimension; ++j) slope[c][j] += error * standard(x, j) / n;
      }
    });
    for (int c = 0; c < kClasses; ++c) {
      bias[c] -= 0.15 * bias_slope[c];
      for (std::size_t j = 0; j < kDimension; ++j) weights[c][j] -= 0.15 * (slope[c][j] + strength * weights[c][j]);
    }
  }
  double right = 0, rows = 0;
  each(test, [&](const float* x, int label) {
    int best = 0;
    for (int c = 1; c < kClasses; ++c)
      if (score(x, c) > score(x, best)) best = c;
    right += best == label ? 1 : 0;
    rows += 1;
  });
  return right / rows;
}

TEST(RidgeMpi, EqualsGradientDescent) {
  const auto world = comm::Communicator::world();
  const auto train = some(70, 1, 1.0), test = some(201, 2, 1.0);
  for (const double strength : {0.01, 0.5}) {
    const double found = ridge_top1(world, test::slice(train.values, train.labels, world),
                                    test::slice(test.values, test.labels, world), kClasses, strength);
    EXPECT_NEAR(found, plain(train, test, strength), 1e-12);
    EXPECT_GT(found, 0.5);
    EXPECT_LT(found, 0.95) << "too easy to tell errors";
  }
}

TEST(RidgeMpi, RefusesASetWithoutLabels) {
  const auto world = comm::Communicator::world();
  const auto train = some(30, 1, 1.0);
  const auto some_table = test::slice(train.values, train.labels, world);
  const auto none = test::slice(train.values, std::vector<std::int32_t>(30, -1), world);
  EXPECT_THROW(ridge_top1(world, none, some_table, kClasses), Error);
  EXPECT_THROW(ridge_top1(world, some_table, none, kClasses), Error);
}

}  // namespace
}  // namespace seer::eval
