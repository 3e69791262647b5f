// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/logistic.hpp"

#include <algorithm>

#include "probe_support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr Solver kExact{1e-11, 100000};

class Logistic : public testing::Test {
 protected:
  const comm::Communicator world = comm::Communicator::world();
};

TEST_F(Logistic, GradientIsThatOfTheObjective) {
  const test::Probes probes;
  auto pair = probes.pair(world);
  for (const std::int32_t kind : {0, 1, 2}) {  // softmax, binomial, one for each class
    if (kind == 1) pair = probes.pair(world, 2);
    if (kind == 2) {
      pair.train.several = true;
      pair.train.truth.assign(pair.train.rows() * pair.train.classes.size(), 0);
      for (std::size_t i = 0; i < pair.train.truth.size(); i += 3) pair.train.truth[i] = i % 2 == 0 ? 1 : -1;
    }
    const LogisticRegression regression(world, pair.train, TwoClasses::binomial);
    const auto n = static_cast<std::size_t>(regression.variables());
    std::vector<double> at(n), gradient(n), unused(n);
    for (std::size_t i = 0; i < n; ++i) at[i] = test::hash_value(9, i, 0.5);
    regression.objective(at, 0.02, gradient);
    for (std::size_t i = 0; i < n; i += 3) {
      constexpr double kStep = 1e-5;
      auto low = at, high = at;
      low[i] -= kStep;
      high[i] += kStep;
      const double slope =
          (regression.objective(high, 0.02, unused) - regression.objective(low, 0.02, unused)) / (2 * kStep);
      EXPECT_NEAR(gradient[i], slope, 1e-8) << "kind " << kind << ", variable " << i;
    }
  }
}

// Two rows, +1 and -1: by symmetry the bias is 0, and the weight w solves 1 / (1 + e^w) = w / (2 C). As a softmax each
// class has half of it, and C counts twice as much.
TEST_F(Logistic, TwoRowsHaveTheKnownOptimum) {
  const auto pair = test::pair_of(world, {-1, 1}, {0, 1}, {-1, 1}, {0, 1});
  for (const double c : {0.1, 1.0, 30.0}) {
    for (const auto kind : {TwoClasses::binomial, TwoClasses::softmax}) {
      LogisticRegression regression(world, pair.train, kind);
      const auto fit = regression.fit(c, kExact);
      EXPECT_TRUE(fit.converged);
      const double scale = kind == TwoClasses::softmax ? 2 : 1, w = scale * fit.model.weight[1];
      EXPECT_NEAR(1 / (1 + std::exp(w)), w / (2 * scale * c), 1e-9);
      EXPECT_NEAR(fit.model.weight[0], -fit.model.weight[1], 1e-12);
      EXPECT_NEAR(fit.model.bias[1], 0, 1e-9);
    }
  }
}

TEST_F(Logistic, ExtremeValuesOfC) {
  const auto pair = test::Probes().pair(world);
  for (const double c : {1e-12, 1e12}) {
    LogisticRegression regression(world, pair.train, TwoClasses::binomial);
    EXPECT_TRUE(std::isfinite(regression.fit(c, {1e-12, 1000}).objective)) << c;
  }
}

TEST_F(Logistic, DecisionValuesAreThoseOfScikitLearn) {
  const test::Probes probes;
  const auto pair = probes.pair(world), two = probes.pair(world, 2);
  LogisticRegression regression(world, pair.train, TwoClasses::binomial);
  for (const auto& [c, name] : {std::pair(0.01, "logistic_0.01"), {1.0, "logistic_1"}, {10.0, "logistic_10"}}) {
    const auto fit = regression.fit(c, kExact);
    const auto [worst, largest] = test::compare_scores(fit.model, pair.test, probes.file.read(name).values);
    EXPECT_LT(worst, 1e-5) << name;
    EXPECT_GT(largest, 0.1);
  }
  LogisticRegression binary(world, two.train, TwoClasses::binomial);
  EXPECT_LT(test::compare_scores(binary.fit(1, kExact).model, two.test, probes.file.read("binary_1").values).first,
            1e-5);
}

TEST_F(Logistic, ProtocolsChooseOnHeldRowsOrOnTheTestSet) {
  const test::Probes probes;
  const auto pair = probes.pair(world);
  LogisticOptions options{.protocol = logistic_protocol("vissl")};
  options.protocol.grid = {0.1};
  options.protocol.solver = kExact;
  auto rows = logistic_probe(world, pair.train, pair.test, options, {});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_LT(test::compare_scores(rows[0].model, pair.test, probes.file.read("vissl_0.1").values).first, 1e-4);
  EXPECT_EQ(rows[0].choice, 0);

  options.protocol = logistic_protocol("dinov2");
  EXPECT_EQ(options.protocol.grid.size(), 45U);
  EXPECT_NEAR(options.protocol.grid[4], 1e-5, 1e-18);
  const auto honest = logistic_probe(world, pair.train, pair.test, options, {});
  options.best_on_test = true;
  const auto best = logistic_probe(world, pair.train, pair.test, options, {});
  EXPECT_EQ(best[0].choice, best[0].top1);
  EXPECT_GE(best[0].top1, honest[0].top1);
  EXPECT_GT(honest[0].top1, 0.6);
  EXPECT_NE(honest[0].choice, honest[0].top1);
  EXPECT_EQ(honest[0].train_images, 123U);
  EXPECT_THROW(logistic_protocol("other"), Error);
}

TEST_F(Logistic, FewRowsAreCrossValidatedAndSingleOnesChooseNothing) {
  const test::Probes probes;
  const auto pair = probes.pair(world);
  LogisticOptions options{.protocol = logistic_protocol("dinov2")};
  options.protocol.grid = {1e-4, 0.5, 1.5, 100};
  const auto rows =
      logistic_probe(world, pair.train, pair.test, options, {.per_class = {1, 3}, .fractions = {0.01, 1}});
  for (const std::size_t i : {std::size_t{0}, std::size_t{2}}) {  // one image of each class
    EXPECT_EQ(rows[i].c, 1.5);
    EXPECT_EQ(rows[i].choice, 0);
    EXPECT_EQ(rows[i].selection.find("none, as a class has one training image"), 0U);
  }
  EXPECT_EQ(rows[1].selection.find("best in 3-fold cross-validation"), 0U);
  EXPECT_GT(rows[1].choice, 0.2);
  EXPECT_EQ(rows[3].selection.find("best on 10 % of the training rows"), 0U);
  EXPECT_GT(rows[3].all_points, 0.5) << "mean average precision, also with one class an image";
}

TEST_F(Logistic, DrawsHaveMeanAndDeviation) {
  const test::Probes probes;
  const auto pair = probes.pair(world);
  LogisticOptions options{.protocol = logistic_protocol("sklearn")};
  const Sizes sizes{.per_class = {2, 8}, .fractions = {0.5}, .draws = 3, .seed = 5};
  const auto rows = logistic_probe(world, pair.train, pair.test, options, sizes);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].train_images, 10U);
  EXPECT_EQ(rows[1].train_images, 40U);
  EXPECT_GT(rows[1].top1, rows[0].top1);
  double sum = 0, squares = 0;
  for (std::uint64_t seed = 5; seed < 8; ++seed) {
    const auto one =
        logistic_probe(world, pair.train, pair.test, options, {.per_class = {2}, .draws = 1, .seed = seed});
    sum += one[0].top1 / 3;
    squares += one[0].top1 * one[0].top1 / 3;
  }
  EXPECT_NEAR(rows[0].top1, sum, 1e-12);
  EXPECT_NEAR(rows[0].top1_deviation, std::sqrt((squares - sum * sum) * 3 / 2), 1e-9);
  EXPECT_GT(rows[0].top1_deviation, 0);
}

// A class of which the training rows know nothing comes last, and one that all have comes first.
TEST_F(Logistic, ClassesWithoutExamplesHaveNoVariables) {
  const test::Probes probes;
  auto pair = probes.pair(world);
  pair.train.classes.insert(pair.train.classes.begin(), "unseen");
  for (auto& label : pair.train.labels) ++label;
  LogisticRegression regression(world, pair.train, TwoClasses::binomial);
  EXPECT_EQ(regression.variables(), 5 * 14);
  const auto fit = regression.fit(1, kExact);
  EXPECT_EQ(fit.model.classes, 6);
  EXPECT_EQ(fit.model.bias[0], -1e30);
  EXPECT_LT(test::compare_scores(fit.model, pair.test, probes.file.read("logistic_1").values).first, 1e-5);
}

TEST_F(Logistic, ClassesOfAllExamplesHaveNoVariables) {
  auto pair = test::Probes().pair(world, 2);
  pair.train.several = true;
  pair.train.truth.assign(pair.train.rows() * 2, 1);
  const auto fit = LogisticRegression(world, pair.train, TwoClasses::binomial).fit(1, kExact);
  EXPECT_TRUE(fit.converged);
  EXPECT_EQ(fit.model.bias, (std::vector<double>{1e30, 1e30}));
  EXPECT_EQ(fit.model.weight, std::vector<double>(fit.model.weight.size(), 0.0));
}

TEST_F(Logistic, BadSetsAreRefused) {
  const auto code_and_text = [&](const std::vector<float>& train, const std::vector<std::int32_t>& labels,
                                 const std::vector<std::int32_t>& tests) {
    try {
      test::pair_of(world, train, labels, {0, 1, 2}, tests);
    } catch (const Error& error) {
      return std::pair(error.code(), error.message());
    }
    return std::pair(ExitCode::ok, std::string());
  };
  const auto expect = [&](ExitCode code, const std::string& piece, const auto& found) {
    EXPECT_EQ(found.first, code) << found.second;
    EXPECT_NE(found.second.find(piece), std::string::npos) << found.second;
  };
  EXPECT_EQ(code_and_text({0, 1, 2}, {0, 1, 2}, {0, 1, 1}).first, ExitCode::ok);
  expect(ExitCode::file, "all 3 images are of one class", code_and_text({0, 1, 2}, {1, 1, 1}, {1, 1, 1}));
  expect(ExitCode::file, "1 images of a table are of classes without any image in a table: 2",
         code_and_text({0, 1, 2}, {0, 1, 1}, {0, 1, 2}));
  expect(ExitCode::file, "no image has a label", code_and_text({0, 1, 2}, {-1, -1, -1}, {0, 1, 1}));
  expect(ExitCode::numerics, "are equal", code_and_text({1, 1, 1}, {0, 1, 2}, {0, 1, 2}));
  expect(ExitCode::numerics, "are not finite", code_and_text({0, NAN, 2}, {0, 1, 2}, {0, 1, 2}));
}

}  // namespace
}  // namespace seer::eval
