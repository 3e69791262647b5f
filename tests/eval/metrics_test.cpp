// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/metrics.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "seer/base/error.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

TEST(Accuracy, CountsRanksByTheDefinition) {
  const auto world = comm::Communicator::world();
  constexpr std::size_t kRows = 211, kClasses = 9;
  auto scores = test::hash_fill(kRows * kClasses, 1, 1.0);
  for (auto& score : scores) score = std::round(score * 4);  // many ties
  std::vector<std::int32_t> labels(kRows);
  for (std::size_t i = 0; i < kRows; ++i) labels[i] = static_cast<std::int32_t>(i * 5 % (kClasses - 1)) - 1;
  AccuracyCounter counter(kClasses);
  counter.add(std::span(scores).first(100 * kClasses), std::span(labels).first(100));
  counter.add(std::span(scores).subspan(100 * kClasses), std::span(labels).subspan(100));
  const auto found = counter.result(world);
  std::vector<std::int64_t> images(kClasses, 0), right(kClasses, 0);
  std::int64_t five = 0;
  for (std::size_t i = 0; i < kRows; ++i) {
    if (labels[i] < 0) continue;
    std::vector<std::int32_t> order(kClasses);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater(),
                             [&](auto c) { return scores[i * kClasses + static_cast<std::size_t>(c)]; });
    const auto place = std::ranges::find(order, labels[i]) - order.begin();
    ++images[static_cast<std::size_t>(labels[i])];
    right[static_cast<std::size_t>(labels[i])] += place == 0 ? 1 : 0;
    five += place < 5 ? 1 : 0;
  }
  EXPECT_EQ(found.images_of, images);
  EXPECT_EQ(found.right_of, right);
  const auto n = std::reduce(images.begin(), images.end()), r = std::reduce(right.begin(), right.end());
  EXPECT_EQ(found.images, n);
  EXPECT_DOUBLE_EQ(found.top1, static_cast<double>(r) / static_cast<double>(n));
  EXPECT_DOUBLE_EQ(found.top5, static_cast<double>(five) / static_cast<double>(n));
  double mean = 0;
  std::ptrdiff_t seen = 0;
  for (std::size_t c = 0; c < kClasses; ++c) {
    if (images[c] == 0) continue;
    ++seen;
    mean += static_cast<double>(right[c]) / static_cast<double>(images[c]);
  }
  EXPECT_LT(seen, static_cast<std::ptrdiff_t>(kClasses));  // classes without an image are not in the mean
  EXPECT_DOUBLE_EQ(found.mean_per_class, mean / static_cast<double>(seen));
}

TEST(Accuracy, PercentsOfRoundNumbersAreRound) {
  EXPECT_NE(100 * (29.0 / 100), 29);
  for (const int images : {100, 500, 800, 1000})
    for (int right = 0; right <= images; ++right)
      EXPECT_EQ(percent(right / static_cast<double>(images)), 100 * right / static_cast<double>(images)) << right;
}

TEST(Accuracy, ScoresThatAreNotNumbersAreWrong) {
  const auto world = comm::Communicator::world();
  AccuracyCounter counter(2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  counter.add(std::vector<float>{nan, nan, 0, nan, nan, 0}, std::vector<std::int32_t>{0, 0, 0});
  EXPECT_EQ(counter.result(world).top1, 0);
  EXPECT_DOUBLE_EQ(counter.result(world).top5, 1.0 / 3);
}

struct Naive {
  double all_points = 0, eleven_points = 0;
};

/// The definition: at each score found, precision and recall of the images with at least this score.
Naive naive_precision(const std::vector<float>& scores, const std::vector<std::int8_t>& truth, std::size_t classes,
                      std::size_t c) {
  struct Place {
    double recall, precision;
  };
  std::vector<Place> curve;
  double positives = 0;
  for (std::size_t i = c; i < truth.size(); i += classes) positives += truth[i] == 1 ? 1 : 0;
  for (std::size_t at = c; at < truth.size(); at += classes) {
    if (truth[at] < 0) continue;
    double right = 0, chosen = 0;
    for (std::size_t i = c; i < truth.size(); i += classes) {
      if (truth[i] < 0 || scores[i] < scores[at]) continue;
      ++chosen;
      right += truth[i];
    }
    curve.push_back({right / positives, right / chosen});
  }
  const auto envelope = [&](double recall) {
    double most = 0;
    for (const auto& place : curve)
      if (place.recall >= recall - 1e-9) most = std::max(most, place.precision);
    return most;
  };
  Naive out;
  for (int k = 1; k <= static_cast<int>(positives); ++k) out.all_points += envelope(k / positives) / positives;
  for (int k = 0; k <= 10; ++k) out.eleven_points += envelope(k / 10.0) / 11;
  return out;
}

TEST(MeanPrecision, AgreesWithTheDefinitionAlsoWithTiesAndEntriesLeftOut) {
  const auto world = comm::Communicator::world();
  constexpr std::size_t kRows = 173, kClasses = 7;
  for (const double levels : {3.0, 1e6}) {
    auto scores = test::hash_fill(kRows * kClasses, 3, 1.0);
    std::vector<std::int8_t> truth(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double draw = test::hash_value(4, i, 1.0);
      truth[i] = static_cast<std::int8_t>(draw < -0.8 ? -1 : draw > 0.6 ? 1 : 0);
      if (i % kClasses == 5) truth[i] = 0;                                                // no positive
      if (i % kClasses == 6) truth[i] = static_cast<std::int8_t>(i < kClasses ? 1 : -1);  // a single one, nothing else
      scores[i] = static_cast<float>(std::round((static_cast<double>(scores[i]) + 0.3 * draw) * levels));
    }
    const auto found = mean_average_precision(world, scores, truth, kClasses);
    ASSERT_EQ(found.classes, 6);
    Naive mean;
    for (std::size_t c = 0; c < kClasses; ++c) {
      if (c == 5) {
        EXPECT_TRUE(std::isnan(found.per_class[c]));
        continue;
      }
      const auto expected = naive_precision(scores, truth, kClasses, c);
      EXPECT_NEAR(found.per_class[c], expected.all_points, 1e-12) << c;
      mean.all_points += expected.all_points / 6;
      mean.eleven_points += expected.eleven_points / 6;
    }
    EXPECT_NEAR(found.all_points, mean.all_points, 1e-12);
    EXPECT_NEAR(found.eleven_points, mean.eleven_points, 1e-12);
    EXPECT_GT(std::abs(found.all_points - found.eleven_points), 1e-4);
  }
}

TEST(MeanPrecision, RefusesScoresThatAreNotFinite) {
  const auto world = comm::Communicator::world();
  const std::vector<float> scores = {1, std::numeric_limits<float>::infinity()};
  EXPECT_THROW(mean_average_precision(world, scores, std::vector<std::int8_t>{1, 0}, 1), Error);
}

TEST(Spread, IsOfTheSampleOrOfThePopulation) {
  const std::vector<double> values = {1, 2, 6};
  EXPECT_DOUBLE_EQ(spread_of(values).mean, 3);
  EXPECT_DOUBLE_EQ(spread_of(values).deviation, std::sqrt(14.0 / 2));
  EXPECT_DOUBLE_EQ(spread_of(values, true).deviation, std::sqrt(14.0 / 3));
  EXPECT_EQ(spread_of(std::span(values).first(1)).deviation, 0);
}

}  // namespace
}  // namespace seer::eval
