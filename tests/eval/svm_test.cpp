// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/svm.hpp"

#include <algorithm>

#include "probe_support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

class Svm : public testing::Test {
 protected:
  Svm() {
    normalise_rows(pair.train);
    normalise_rows(pair.test);
  }
  std::string message_of(const SvmOptions& options, const Sizes& sizes = {}) const {
    try {
      svm_probe(world, pair.train, pair.test, options, sizes);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      return error.message();
    }
    return "no error";
  }
  const comm::Communicator world = comm::Communicator::world();
  const test::Probes probes;
  ExamplePair pair = probes.pair(world);
};

TEST_F(Svm, DecisionValuesAreThoseOfScikitLearn) {
  const auto targets = classes_of_all(world, pair.train);
  SvmTrainer trainer(world, pair.train, all_signs(targets, 5), {.tolerance = 1e-8});
  for (const auto& [cost, name] : {std::pair(0.1, "svm_0.1"), {1.0, "svm_1"}, {20.0, "svm_20"}}) {
    const auto model = trainer.fit(std::vector(5, cost));
    const auto [worst, largest] = test::compare_scores(model, pair.test, probes.file.read(name).values);
    EXPECT_LT(worst, 1e-5) << name;
    EXPECT_GT(largest, 0.5);
  }
  SvmTrainer usual(world, pair.train, all_signs(targets, 5), {});
  const auto wanted = probes.file.read("svm_0.1").values;
  EXPECT_LT(test::compare_scores(usual.fit(std::vector(5, 0.1)), pair.test, wanted).first, 1e-3);
  EXPECT_EQ(usual.unfinished(), 0);
}

// Hard to separate, C = 10^6, tolerance 1e-12: coordinate descent reaches its limit, Newton's method takes over.
TEST_F(Svm, FitsThatDoNotEndAreFinishedByNewton) {
  const auto targets = classes_of_all(world, pair.train);
  SvmTrainer trainer(world, pair.train, all_signs(targets, 5), {.tolerance = 1e-12});
  trainer.fit(std::vector(5, 1e6));
  EXPECT_GT(trainer.unfinished(), 0);
}

TEST_F(Svm, FoldsAndPrecisionAreThoseOfScikitLearn) {
  const auto labels = probes.labels("train_labels"), test_labels = probes.labels("test_labels");
  std::vector<std::int8_t> signs(labels.size());
  std::ranges::transform(labels, signs.begin(), [](auto label) { return label == 2 ? 1 : -1; });
  EXPECT_EQ(stratified_folds(signs, 3), probes.labels("folds"));
  const auto values = probes.file.read("svm_1").values, wanted = probes.file.read("precision").values;
  for (std::size_t c = 0; c < 5; ++c) {
    std::vector<double> scores;
    std::vector<std::int8_t> truth;
    for (std::size_t i = 0; i < test_labels.size(); ++i) {
      scores.push_back(values[i * 5 + c]);
      truth.push_back(test_labels[i] == static_cast<std::int32_t>(c) ? 1 : -1);
    }
    EXPECT_NEAR(step_precision(scores, truth), wanted[c], 1e-12);
  }
  // Equal scores are one step: 1 of 2 is found at once, whatever their order.
  EXPECT_DOUBLE_EQ(step_precision(std::vector<double>{1, 1}, std::vector<std::int8_t>{1, -1}), 0.5);
  // Rows without a sign are in no fold.
  EXPECT_EQ(stratified_folds(std::vector<std::int8_t>{0, -1, 1, -1, 0, 1}, 2),
            (std::vector<std::int32_t>{-1, 0, 0, 1, -1, 1}));
}

TEST_F(Svm, TheCostIsCrossValidatedOrBestOnTheTestSet) {
  SvmOptions options{.costs = {0.001, 1, 20}};
  const auto honest = svm_probe(world, pair.train, pair.test, options, {});
  ASSERT_EQ(honest.size(), 1U);
  EXPECT_GT(honest[0].choice, 0.4);
  EXPECT_GT(honest[0].all_points, 0.6);
  EXPECT_GE(honest[0].all_points, honest[0].choice - 0.2);
  EXPECT_GT(honest[0].top1, 0.6);
  options.best_on_test = true;
  const auto best = svm_probe(world, pair.train, pair.test, options, {});
  EXPECT_EQ(best[0].choice, best[0].all_points);
  double most = 0;
  for (const double cost : options.costs)
    most = std::max(most, svm_probe(world, pair.train, pair.test, {.costs = {cost}}, {})[0].all_points);
  EXPECT_DOUBLE_EQ(best[0].all_points, most);
}

TEST_F(Svm, DrawnSignsAreKPositivesAndKOfEachOther) {
  data::Targets classes_of;
  for (std::int32_t i = 0; i < 90; ++i)
    classes_of.add(i % 2 == 0 ? std::vector<std::int32_t>{i % 3} : std::vector<std::int32_t>{i % 3, (i + 1) % 3});
  const std::vector<std::string> names = {"a", "b", "c"};
  auto whole = all_signs(classes_of, 3);
  for (std::size_t i = 0; i < 20; ++i) whole.values[i] = 0;  // class a: left out
  const auto signs = drawn_signs(whole, names, 4, 1), other = drawn_signs(whole, names, 4, 2);
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_EQ(std::ranges::count(signs.of(c), 1), 4);
    EXPECT_EQ(std::ranges::count(signs.of(c), -1), 8);
    for (std::size_t i = 0; i < 90; ++i) EXPECT_TRUE(signs.of(c)[i] == 0 || signs.of(c)[i] == whole.of(c)[i]) << i;
    EXPECT_FALSE(std::ranges::equal(signs.of(c), other.of(c)));
  }
  EXPECT_EQ(drawn_signs(whole, names, 4, 1).values, signs.values);
  EXPECT_THROW(drawn_signs(whole, names, 46, 1), Error);
}

TEST_F(Svm, FewRowsOfAClass) {
  EXPECT_NE(message_of({}, {.per_class = {1000}}).find("wanted 1000 of each class"), std::string::npos);
  // One positive cannot be validated: C = 1. Two: two folds.
  const auto rows = svm_probe(world, pair.train, pair.test, {}, {.per_class = {1, 2}, .draws = 2});
  EXPECT_EQ(rows[0].c, 1);
  EXPECT_EQ(rows[0].choice, 0);
  EXPECT_GT(rows[1].choice, 0);
  EXPECT_EQ(rows[1].train_images, 10U);
  // The same of a share, and of a class with fewer rows than folds.
  const auto share = svm_probe(world, pair.train, pair.test, {}, {.fractions = {0.001}});
  EXPECT_EQ(share[0].c, 1);
  EXPECT_EQ(share[0].train_images, 5U);
  EXPECT_GT(svm_probe(world, pair.train, pair.test, {.costs = {1, 2}, .folds = 60}, {})[0].choice, 0.4);
}

}  // namespace
}  // namespace seer::eval
