// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/knn.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/confusion.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

class Knn : public testing::Test {
 protected:
  const comm::Communicator& world() const { return world_; }
  /// Message of the error that knn_report() throws.
  std::string message_of(const FeatureTable& train, const FeatureTable& test, const KnnOptions& options = {}) const {
    try {
      knn_report(world(), train, test, options);
    } catch (const Error& error) {
      return error.message();
    }
    return "no error";
  }

 private:
  comm::Communicator world_ = comm::Communicator::world();
};

std::vector<std::int32_t> labels_of(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

TEST_F(Knn, VotesAndPredictionsAreThoseOfTheReference) {
  const test::GoldenFile golden("knn.h5");
  const auto train =
      test::slice(golden.read("train_features").f32(), labels_of(golden.read("train_labels").values), world());
  const auto tests = golden.read("test_features");
  const auto test = test::slice(tests.f32(), std::vector<std::int32_t>(tests.dims[0], -1), world());
  KnnOptions options;
  options.k = {static_cast<std::int64_t>(golden.attribute("/", "k"))};
  options.temperature = {golden.attribute("/", "temperature")};
  ASSERT_EQ(options.k[0], 20);
  const auto result = knn_votes(world(), train, test, 5, options);
  ASSERT_EQ(result.size(), 1U);
  const auto votes = golden.read("votes").values;
  ASSERT_EQ(result[0].votes.size(), votes.size());
  for (std::size_t i = 0; i < votes.size(); ++i)
    EXPECT_NEAR(result[0].votes[i], votes[i], 2e-5 * std::abs(votes[i])) << i;
  EXPECT_LT(test::relative_error(result[0].votes, votes), 5e-6);
  EXPECT_EQ(result[0].predicted, labels_of(golden.read("predicted").values));
}

/// The definition, with sorts and double precision.
std::vector<double> naive_votes(const std::vector<float>& train, const std::vector<std::int32_t>& labels,
                                const std::vector<float>& test, std::size_t d, std::size_t classes, std::size_t k,
                                double temperature, bool cosine) {
  const auto dot = [d](const float* a, const float* b) {
    double sum = 0;
    for (std::size_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
    return sum;
  };
  std::vector<double> votes(test.size() / d * classes, 0.0);
  for (std::size_t i = 0; i < test.size() / d; ++i) {
    std::vector<double> similarity(labels.size());
    for (std::size_t r = 0; r < labels.size(); ++r) {
      similarity[r] = dot(&test[i * d], &train[r * d]);
      if (cosine) similarity[r] /= std::sqrt(dot(&test[i * d], &test[i * d]) * dot(&train[r * d], &train[r * d]));
    }
    std::vector<std::size_t> order(labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return similarity[a] > similarity[b]; });
    for (std::size_t n = 0; n < std::min(k, order.size()); ++n) {
      votes[i * classes + static_cast<std::size_t>(labels[order[n]])] += std::exp(similarity[order[n]] / temperature);
    }
  }
  return votes;
}

TEST_F(Knn, AgreesWithTheDefinitionForSeveralKAndBlocks) {
  constexpr std::size_t kTrain = 203, kTest = 37, d = 19, kClasses = 7;
  const auto train = test::hash_fill(kTrain * d, 1, 1.0), test_values = test::hash_fill(kTest * d, 2, 1.0);
  std::vector<std::int32_t> labels(kTrain);
  for (std::size_t i = 0; i < kTrain; ++i) labels[i] = static_cast<std::int32_t>(i * 5 % kClasses);
  for (const bool cosine : {true, false}) {
    KnnOptions options{.k = {1, 10, 200, 500}, .temperature = {0.2}, .cosine = cosine, .block_rows = 31};
    const auto result =
        knn_votes(world(), test::slice(train, labels, world()),
                  test::slice(test_values, std::vector<std::int32_t>(kTest, 0), world()), kClasses, options);
    ASSERT_EQ(result.size(), 4U);
    for (const auto& votes : result) {
      const auto expected =
          naive_votes(train, labels, test_values, d, kClasses, static_cast<std::size_t>(votes.k), 0.2, cosine);
      EXPECT_LT(test::relative_error(votes.votes, expected), 1e-5) << "k " << votes.k << " cosine " << cosine;
    }
  }
}

// Every pair of k and temperature as if it were alone.
TEST_F(Knn, GridIsAnsweredInOnePass) {
  constexpr std::size_t kTrain = 90, kTest = 11, d = 5, kClasses = 4;
  const auto train = test::hash_fill(kTrain * d, 1, 1.0), test_values = test::hash_fill(kTest * d, 2, 1.0);
  std::vector<std::int32_t> labels(kTrain);
  for (std::size_t i = 0; i < kTrain; ++i) labels[i] = static_cast<std::int32_t>(i * 3 % kClasses);
  const auto result = knn_votes(world(), test::slice(train, labels, world()),
                                test::slice(test_values, std::vector<std::int32_t>(kTest, 0), world()), kClasses,
                                {.k = {3, 40}, .temperature = {0.07, 0.5, 2}});
  ASSERT_EQ(result.size(), 6U);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(result[i].k, i < 3 ? 3 : 40);
    EXPECT_EQ(result[i].temperature, std::vector({0.07, 0.5, 2.0})[i % 3]);
    const auto expected = naive_votes(train, labels, test_values, d, kClasses, static_cast<std::size_t>(result[i].k),
                                      result[i].temperature, true);
    EXPECT_LT(test::relative_error(result[i].votes, expected), 1e-5) << i;
  }
}

// A set against itself: the others decide, whatever lies before the row in the set.
TEST_F(Knn, FirstNeighbourIsLeftOut) {
  const std::vector<float> rows = {1, 0, 0.99F, 0.1F, 0, 1, 0.1F, 0.99F};
  const auto table = test::slice(rows, {0, 1, 2, 3}, world());
  const KnnOptions options{.k = {1}, .leave_out = LeaveOut::first};
  EXPECT_EQ(knn_votes(world(), table, table, 4, options)[0].predicted, (std::vector<std::int32_t>{1, 0, 3, 2}));
  EXPECT_EQ(knn_votes(world(), table, table, 4, {.k = {1}})[0].predicted, (std::vector<std::int32_t>{0, 1, 2, 3}));
}

// Rows 0 and 1 have the same features; only row 0 is the test image.
TEST_F(Knn, SameImageIsLeftOut) {
  auto train = test::slice({1, 0, 1, 0, 0, 1}, {0, 1, 2}, world());
  auto test = test::slice({1, 0}, {0}, world());
  const KnnOptions options{.k = {1}, .leave_out = LeaveOut::same};
  EXPECT_THROW(knn_votes(world(), train, test, 3, options), Error) << "tables without checksums";
  train.checksum = {7, 8, 9};
  test.checksum = {7};
  EXPECT_EQ(knn_votes(world(), train, test, 3, options)[0].predicted, std::vector<std::int32_t>{1});
  test.checksum = {5};
  EXPECT_EQ(knn_votes(world(), train, test, 3, options)[0].predicted, std::vector<std::int32_t>{0});
}

// A part of the columns counts as a table of its own.
TEST_F(Knn, ColumnsOfOneFeatureAreCompared) {
  const std::vector<float> left = test::hash_fill(30 * 3, 1, 1.0), right = test::hash_fill(30 * 2, 2, 9.0);
  std::vector<float> both;
  for (std::size_t i = 0; i < 30; ++i) {
    both.insert(both.end(), &left[3 * i], &left[3 * i] + 3);
    both.insert(both.end(), &right[2 * i], &right[2 * i] + 2);
  }
  std::vector<std::int32_t> labels(30);
  for (std::size_t i = 0; i < 30; ++i) labels[i] = static_cast<std::int32_t>(i % 4);
  const auto joined = test::slice(both, labels, world());
  for (const auto& [values, columns] :
       {std::pair(left, FeatureColumns{"left", 0, 3}), std::pair(right, FeatureColumns{"right", 3, 2})}) {
    const auto alone = test::slice(values, labels, world());
    const auto of_part = knn_votes(world(), joined, joined, 4, {.k = {5}, .cosine = false, .columns = columns});
    EXPECT_EQ(of_part[0].votes, knn_votes(world(), alone, alone, 4, {.k = {5}, .cosine = false})[0].votes);
  }
}

TEST_F(Knn, MeanPerClassCountsClassesAlike) {
  const auto train = test::slice({1, 0, 0, 1}, {0, 1}, world());
  const auto report =
      knn_report(world(), train, test::slice({1, 0, 1, 0, 1, 0, 1, 0}, {0, 0, 0, 1}, world()), {.k = {1}});
  EXPECT_DOUBLE_EQ(report.scores[0].top1, 0.75);
  EXPECT_DOUBLE_EQ(report.scores[0].mean_per_class, 0.5);
  EXPECT_EQ(report.truth, (std::vector<std::int32_t>{0, 0, 0, 1}));
  EXPECT_EQ(report.scores[0].predicted, (std::vector<std::int32_t>{0, 0, 0, 0}));
}

TEST_F(Knn, FewRowsAreThoseOfTheSubset) {
  auto table = test::slice({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 1, 0, 1, 0, 1, 0, 1, 0, -1}, world());
  table.bad[0] = 1;
  const auto few = few_rows(world(), table, {.per_class = 2, .seed = 3});
  EXPECT_EQ(few.info.images, 4U);
  EXPECT_EQ(few.first, 0U);
  EXPECT_TRUE(std::ranges::is_sorted(few.index));
  EXPECT_EQ(std::ranges::count(few.labels, 0), 2);
  EXPECT_EQ(std::ranges::count(few.labels, 1), 2);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(few.values[i], static_cast<float>(few.index[i]));
    EXPECT_NE(few.index[i], 0U) << "an image that does not decode";
  }
  std::set<std::vector<std::uint64_t>> draws;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    draws.insert(few_rows(world(), table, {.per_class = 2, .seed = seed}).index);
  EXPECT_GT(draws.size(), 4U);
  EXPECT_THROW(few_rows(world(), table, {.per_class = 5}), Error);
}

TEST_F(Knn, ProtocolsHaveDifferentNamesAndSaneNumbers) {
  std::set<std::string> names;
  for (const auto& protocol : knn_protocols()) {
    EXPECT_TRUE(names.insert(protocol.name).second) << protocol.name;
    EXPECT_GE(*std::ranges::min_element(protocol.k), 10);
    EXPECT_NEAR(protocol.temperature, 0.085, 0.016);
    EXPECT_EQ(protocol.cosine, std::string(protocol.name) != "vissl");
  }
  EXPECT_TRUE(names.contains("vissl") && names.contains("dinov3"));
}

TEST_F(Knn, ConfusionCountsPairs) {
  Confusion confusion;
  confusion.add(std::vector<std::int32_t>{0, 0, 0, 1, 2, 2, -1}, std::vector<std::int32_t>{0, 1, 1, 1, 0, 1, 1});
  confusion.sum(world());
  const auto classes = confusion.per_class(4);
  EXPECT_EQ(classes[0].images, 3);
  EXPECT_DOUBLE_EQ(classes[0].accuracy(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(classes[1].accuracy(), 1);
  EXPECT_EQ(classes[3].images, 0);
  const std::vector<Confusion::Cell> errors = {{0, 1, 2}, {2, 0, 1}, {2, 1, 1}};
  EXPECT_EQ(confusion.largest_errors(10), errors);
  EXPECT_EQ(confusion.largest_errors(1).size(), 1U);
  EXPECT_EQ(confusion.cells().size(), 5U);
}

TEST_F(Knn, OneRowAndOneDimension) {
  const KnnOptions options{.k = {5}, .temperature = {1}, .cosine = false};
  const auto result =
      knn_votes(world(), test::slice({2.0F}, {3}, world()), test::slice({0.5F}, {3}, world()), 4, options);
  EXPECT_EQ(result[0].predicted, std::vector<std::int32_t>{3});
  EXPECT_DOUBLE_EQ(result[0].votes[3], std::exp(1.0));
}

TEST_F(Knn, OfEqualNeighboursTheEarlierCountAndOfEqualVotesTheLowerClass) {
  // Rows 0..5 are alike; k = 3 takes rows 0, 1, 2 with labels 4, 2, 2; k = 2 leaves classes 4 and 2 with equal votes.
  const std::vector<float> train = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
  const std::vector<std::int32_t> labels = {4, 2, 2, 1, 1, 1};
  for (const std::int64_t block : {1, 2, 4, 100}) {
    KnnOptions options{.k = {1, 2, 3}, .temperature = {0.07}, .cosine = true, .block_rows = block};
    const auto result =
        knn_votes(world(), test::slice(train, labels, world()), test::slice({1, 0}, {0}, world()), 5, options);
    EXPECT_EQ(result[0].predicted[0], 4);
    EXPECT_EQ(result[1].predicted[0], 2);
    EXPECT_EQ(result[2].predicted[0], 2);
    EXPECT_EQ(result[2].votes[1], 0.0);
  }
}

TEST_F(Knn, LargeDotProductsDoNotOverflow) {
  const KnnOptions options{.k = {2}, .temperature = {0.07}, .cosine = false};
  const auto result =
      knn_votes(world(), test::slice({100, 0, 99, 0}, {1, 0}, world()), test::slice({50, 0}, {1}, world()), 2, options);
  EXPECT_EQ(result[0].predicted[0], 1);
  EXPECT_TRUE(std::isfinite(result[0].votes[1]));
}

// Dot products beyond the range of float give the same votes as small features with a proportionally smaller
// temperature.
TEST_F(Knn, DotProductsBeyondFloatAreComparedAllTheSame) {
  constexpr std::size_t kTrain = 60, kTest = 20, d = 8, kClasses = 7;
  auto train = test::hash_fill(kTrain * d, 3, 1.0), tests = test::hash_fill(kTest * d, 4, 1.0);
  std::vector<std::int32_t> labels(kTrain), test_labels(kTest);
  for (std::size_t i = 0; i < kTrain; ++i) labels[i] = static_cast<std::int32_t>(i % kClasses);
  for (std::size_t i = 0; i < kTest; ++i) test_labels[i] = static_cast<std::int32_t>(i % kClasses);
  const auto report = [&](double temperature) {
    return knn_report(world(), test::slice(train, labels, world()), test::slice(tests, test_labels, world()),
                      {.k = {1, 20, 60}, .temperature = {temperature}, .cosine = false});
  };
  const auto small = report(std::ldexp(1.0, -7));
  for (auto& value : train) value *= 0x1p80F;
  for (auto& value : tests) value *= 0x1p63F;
  const auto large = report(std::ldexp(1.0, -7 + 143));
  const auto sharp = report(1);
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(large.scores[k].top1, small.scores[k].top1);
    EXPECT_EQ(large.scores[k].top5, small.scores[k].top5);
    EXPECT_GE(sharp.scores[k].top5, sharp.scores[k].top1);
    EXPECT_EQ(sharp.scores[k].top1, small.scores[0].top1) << "the nearest alone decides";
  }
}

// A class whose weights underflow still has votes. Such classes are ordered by their nearest rows.
TEST_F(Knn, VanishingWeightsAreVotes) {
  const auto score = [&](std::int32_t label, double temperature) {
    return knn_report(world(),
                      test::slice({1, 0, 0.9F, 0, 0.8F, 0, 0.7F, 0, 0.6F, 0, 0.5F, 0}, {0, 1, 2, 3, 4, 5}, world()),
                      test::slice({1, 0}, {label}, world()), {.k = {6}, .temperature = {temperature}, .cosine = false})
        .scores[0];
  };
  for (const double temperature : {1.0, 1e-2, 1e-5}) {
    EXPECT_EQ(score(0, temperature).top1, 1) << temperature;
    for (std::int32_t label = 0; label < 6; ++label) {
      EXPECT_EQ(score(label, temperature).top5, label < 5 ? 1 : 0) << temperature << ", class " << label;
    }
  }
}

TEST_F(Knn, TestClassesWithoutATrainingImageAreNamed) {
  const std::vector<std::string> classes = {"cat", "dog", "fox"};
  const auto train = test::slice({1, 0, 0, 1}, {0, 1}, world(), classes);
  const auto test = test::slice({1, 0, 0, 1}, {0, 2}, world(), classes);
  const std::string text = "1 images of a table are of classes without any image in a table: fox";
  EXPECT_NE(message_of(train, test, {.k = {1}, .all_known = true}).find(text), std::string::npos);
  EXPECT_DOUBLE_EQ(knn_report(world(), train, test, {.k = {1}}).scores[0].top1, 0.5);
  EXPECT_NE(log::warnings().back().find(text), std::string::npos);
  const auto one = test::slice({1, 0, 0, 1}, {2, 2}, world(), classes);
  EXPECT_NE(message_of(one, one, {.k = {1}, .all_known = true}).find("all 2 images are of one class"),
            std::string::npos);
}

TEST_F(Knn, ReportCountsLabelledImagesOnly) {
  // Test rows: right at once, in the top five only, without a label, and one that did not decode.
  const std::vector<float> train = {1, 0, 0, 1, 0.9F, 0.1F};
  const std::vector<std::string> classes = {"a", "b", "c"};
  auto test = test::slice({1, 0, 1, 0, 1, 0, 1, 0}, {0, 2, -1, 0}, world(), classes);
  test.bad[3] = 1;
  const auto report = knn_report(world(), test::slice(train, {0, 1, 2}, world(), classes), test,
                                 {.k = {3}, .temperature = {0.5}, .cosine = true});
  EXPECT_EQ(report.classes, 3);
  EXPECT_EQ(report.train_rows, 3);
  EXPECT_EQ(report.test_rows, 2);
  EXPECT_DOUBLE_EQ(report.scores[0].top1, 0.5);
  EXPECT_DOUBLE_EQ(report.scores[0].top5, 1.0);
  EXPECT_DOUBLE_EQ(report.largest_class, 0.5);
}

TEST_F(Knn, LabelsMeanTheirClassesNames) {
  // The test set lacks "cat", and has "ape", which no training image votes for.
  const std::vector<float> rows = {1, 0, 0, 1, -1, 0};
  const auto train = test::slice(rows, {0, 1, 2}, world(), {"cat", "dog", "fox"});
  const auto test = test::slice(rows, {0, 1, 2}, world(), {"ape", "dog", "fox"});
  const auto report = knn_report(world(), train, test, {.k = {1}});
  EXPECT_EQ(report.classes, 4);
  EXPECT_NE(log::warnings().back().find("without any image in a table: ape"), std::string::npos);
  EXPECT_DOUBLE_EQ(report.scores[0].top1, 2.0 / 3);
  EXPECT_DOUBLE_EQ(report.scores[0].top5, 2.0 / 3);
  // The same classes in another order.
  const auto other = test::slice(rows, {2, 0, 1}, world(), {"dog", "fox", "cat"});
  EXPECT_DOUBLE_EQ(knn_report(world(), train, other, {.k = {1}}).scores[0].top1, 1.0);
}

TEST_F(Knn, RefusesLabelsThatMeanNothing) {
  const auto train = test::slice({1, 0}, {0}, world(), {"cat", "dog", "fox"});
  EXPECT_NE(message_of(train, test::slice({1, 0}, {0}, world())).find("names no classes"), std::string::npos);
  EXPECT_NE(message_of(train, test::slice({1, 0}, {-1}, world(), {"cat", "dog", "fox"})).find("has a label"),
            std::string::npos);
  EXPECT_NE(message_of(train, test::slice({1, 0}, {2}, world(), {"cat", "dog"})).find("label 2 in a set of 2"),
            std::string::npos);
}

TEST_F(Knn, RefusesWhatCannotBeCompared) {
  const auto train = test::slice({1, 0}, {0}, world());
  EXPECT_NE(message_of(train, test::slice({1, 0, 0}, {0}, world())).find("2 dimensions, test features 3"),
            std::string::npos);
  EXPECT_NE(message_of(train, test::slice({NAN, 0}, {0}, world())).find("not finite"), std::string::npos);
  EXPECT_NE(message_of(train, train, {.k = {0}}).find("k >= 1"), std::string::npos);
  EXPECT_NE(message_of(train, train, {.k = {1}, .temperature = {0}}).find("temperature"), std::string::npos);
}

TEST_F(Knn, MeanOfTheTrainingRowsIsRemovedFromBoth) {
  auto train = test::slice({1, 2, 3, 6}, {0, 0}, world());
  auto test = test::slice({10, 10}, {0}, world());
  remove_mean(world(), train, test);
  EXPECT_EQ(train.values, (std::vector<float>{-1, -2, 1, 2}));
  EXPECT_EQ(test.values, (std::vector<float>{8, 6}));
}

}  // namespace
}  // namespace seer::eval
