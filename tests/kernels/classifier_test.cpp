// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/classifier.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "golden.hpp"

namespace seer::kernels {
namespace {

std::vector<double> fill(std::int64_t count, std::uint64_t seed) {
  std::vector<double> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = test::hash_value(seed, i, 1.0);
  return out;
}

// Sizes beside and across the blocks of rows, classes, columns and lanes.
constexpr ClassifierShape kShapes[] = {{1, 1, 1},   {2, 8, 4},    {33, 7, 5},    {70, 130, 9},
                                       {5, 257, 2}, {131, 19, 6}, {300, 128, 4}, {0, 3, 2}};

TEST(Classifier, ScoresAndGradientAreTheNaiveSums) {
  for (const auto& s : kShapes) {
    const auto x = fill(s.rows * s.dimension, 1), w = fill(s.classes * s.dimension, 2), b = fill(s.classes, 3),
               d = fill(s.rows * s.classes, 4);
    std::vector<double> scores(static_cast<std::size_t>(s.rows * s.classes), 7), dw(w.size(), 7), db(b.size(), 7);
    linear_scores(s, x.data(), w.data(), b.data(), scores.data());
    linear_gradient(s, x.data(), d.data(), dw.data(), db.data());
    for (std::int64_t c = 0; c < s.classes; ++c) {
      double bias = 0;
      for (std::int64_t i = 0; i < s.rows; ++i) {
        const auto at = static_cast<std::size_t>(i * s.classes + c);
        bias += d[at];
        double sum = b[static_cast<std::size_t>(c)];
        for (std::int64_t j = 0; j < s.dimension; ++j)
          sum += x[static_cast<std::size_t>(i * s.dimension + j)] * w[static_cast<std::size_t>(c * s.dimension + j)];
        ASSERT_NEAR(scores[at], sum, 1e-12 * static_cast<double>(s.dimension)) << s.rows << " " << s.dimension;
      }
      ASSERT_NEAR(db[static_cast<std::size_t>(c)], bias, 1e-11);
      for (std::int64_t j = 0; j < s.dimension; ++j) {
        double sum = 0;
        for (std::int64_t i = 0; i < s.rows; ++i)
          sum += d[static_cast<std::size_t>(i * s.classes + c)] * x[static_cast<std::size_t>(i * s.dimension + j)];
        ASSERT_NEAR(dw[static_cast<std::size_t>(c * s.dimension + j)], sum, 1e-11) << s.rows << " " << s.dimension;
      }
    }
  }
}

/// Compares what a loss leaves in the scores with differences of the loss.
template <class Loss>
void expect_derivative(const ClassifierShape& s, const std::vector<double>& scores, Loss loss) {
  constexpr double kStep = 1e-5;
  const auto total = [&](std::vector<double> at, std::vector<double>* gradient = nullptr) {
    std::vector<double> losses(static_cast<std::size_t>(s.rows));
    loss(at.data(), losses.data());
    double sum = 0;
    for (const double value : losses) sum += value;
    if (gradient != nullptr) *gradient = at;
    return sum;
  };
  std::vector<double> gradient;
  total(scores, &gradient);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    auto low = scores, high = scores;
    low[i] -= kStep;
    high[i] += kStep;
    EXPECT_NEAR(gradient[i], (total(high) - total(low)) / (2 * kStep), 1e-8) << i;
  }
}

TEST(Classifier, LossesHaveTheirGradientsAndDoNotOverflow) {
  const ClassifierShape s{4, 1, 3};
  auto scores = fill(12, 5);
  for (auto& value : scores) value *= 4;
  const std::vector<std::int32_t> labels = {0, 2, 1, 1};
  const std::vector<std::int8_t> truth = {1, 0, -1, 0, 1, 1, -1, -1, 0, 0, 0, 1};
  expect_derivative(s, scores, [&](double* at, double* losses) { softmax_loss(s, labels.data(), at, losses); });
  expect_derivative(s, scores, [&](double* at, double* losses) { logistic_loss(s, truth.data(), at, losses); });

  std::vector<double> far = {800, -800, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, losses(4);
  softmax_loss(s, std::vector<std::int32_t>{1, 0, 0, 0}.data(), far.data(), losses.data());
  EXPECT_DOUBLE_EQ(losses[0], 1600);
  EXPECT_DOUBLE_EQ(losses[1], std::log(3.0));
  far = {800, -800, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  logistic_loss(s, std::vector<std::int8_t>{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}.data(), far.data(), losses.data());
  EXPECT_DOUBLE_EQ(losses[0], 1600 + std::log(2.0));
  EXPECT_DOUBLE_EQ(far[0], 1);
  EXPECT_DOUBLE_EQ(far[1], -1);
}

}  // namespace
}  // namespace seer::kernels
