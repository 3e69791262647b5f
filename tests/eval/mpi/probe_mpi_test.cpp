// SPDX-License-Identifier: Apache-2.0
// Logistic regression and support vector machines on any number of ranks equal those on one.
#include "../probe_support.hpp"
#include "seer/base/error.hpp"
#include "seer/eval/logistic.hpp"
#include "seer/eval/svm.hpp"

namespace seer::eval {
namespace {

class ProbeMpi : public testing::Test {
 protected:
  const comm::Communicator world = comm::Communicator::world(), alone = world.split(world.rank());
  const test::Probes probes;
};

void expect_equal(const std::vector<ProbeRow>& found, const std::vector<ProbeRow>& wanted, double tolerance) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto &a = found[i], &b = wanted[i];
    EXPECT_EQ(a.train_images, b.train_images);
    EXPECT_EQ(a.c, b.c);
    EXPECT_NEAR(a.choice, b.choice, 1e-12);
    EXPECT_NEAR(a.top1, b.top1, 1e-12);
    EXPECT_NEAR(a.all_points, b.all_points, 1e-12);
    EXPECT_NEAR(a.top1_deviation, b.top1_deviation, 1e-12);
    EXPECT_LE(test::relative_error(a.model.weight, b.model.weight), tolerance);
  }
}

TEST_F(ProbeMpi, LogisticRegressionEqualsOneRank) {
  const auto shared = probes.pair(world), whole = probes.pair(alone);
  EXPECT_EQ(shared.train.all, whole.train.all);
  LogisticOptions options{.protocol = logistic_protocol("vissl")};
  options.protocol.solver = {1e-10, 10000};
  const Sizes sizes{.per_class = {4}, .fractions = {1.0}, .draws = 2};
  const auto found = logistic_probe(world, shared.train, shared.test, options, sizes);
  expect_equal(found, logistic_probe(alone, whole.train, whole.test, options, sizes), 1e-7);
}

TEST_F(ProbeMpi, MachinesEqualThoseOfOneRankToTheBit) {
  auto shared = probes.pair(world), whole = probes.pair(alone);
  for (auto* set : {&shared.train, &shared.test, &whole.train, &whole.test}) normalise_rows(*set);
  const SvmOptions options{.costs = {0.1, 1, 10}};
  const Sizes sizes{.per_class = {3, 8}, .fractions = {1.0}, .draws = 2};
  const auto found = svm_probe(world, shared.train, shared.test, options, sizes);
  expect_equal(found, svm_probe(alone, whole.train, whole.test, options, sizes), 0);
}

// With four ranks, some hold no row of the training or the test set.
TEST_F(ProbeMpi, SeveralClassesAndFewRows) {
  const auto table = [&](const comm::Communicator& comm, std::size_t rows, std::uint64_t seed) {
    constexpr std::size_t d = 6;
    const auto values = test::hash_fill(rows * d, seed, 1.0);
    auto out = test::slice(values, std::vector<std::int32_t>(rows, 0), comm, {"a", "b", "c"});
    for (const auto i : out.index) {
      std::vector<std::int32_t> classes;
      for (std::size_t c = 0; c < 3; ++c)
        if (values[i * d + c] > -0.2F) classes.push_back(static_cast<std::int32_t>(c));
      out.targets.add(classes);
    }
    return out;
  };
  for (const std::size_t rows : {std::size_t{40}, std::size_t{12}}) {
    const auto pair = [&](const comm::Communicator& comm) {
      auto out = make_examples(comm, table(comm, rows, 3), table(comm, rows == 12 ? 4 : 30, 4), {});
      normalise_rows(out.train);
      normalise_rows(out.test);
      return out;
    };
    const auto shared = pair(world), whole = pair(alone);
    EXPECT_TRUE(shared.train.several);
    LogisticOptions options{.protocol = logistic_protocol("sklearn")};
    options.protocol.solver = {1e-10, 10000};
    expect_equal(logistic_probe(world, shared.train, shared.test, options, {}),
                 logistic_probe(alone, whole.train, whole.test, options, {}), 1e-7);
    const SvmOptions svm{.costs = {0.1, 1}, .folds = 2};
    const auto found = svm_probe(world, shared.train, shared.test, svm, {});
    expect_equal(found, svm_probe(alone, whole.train, whole.test, svm, {}), 0);
    EXPECT_EQ(found[0].top1, 0);
    EXPECT_GT(found[0].all_points, 0.7);
    if (rows == 40)
      expect_equal(svm_probe(world, shared.train, shared.test, svm, {.per_class = {3}, .draws = 2}),
                   svm_probe(alone, whole.train, whole.test, svm, {.per_class = {3}, .draws = 2}), 0);
  }
}

TEST_F(ProbeMpi, SquashedImagesAreWhole) {
  const test::ShardFolder folder(world, 3, 1);
  const auto data = data::DataSet::open(folder.path(), world);
  data::EvalOptions options;
  options.crop = 24;
  options.squash = true;
  options.normalisation.mean = {0, 0, 0};
  options.normalisation.std = {1, 1, 1};
  data::EvalReader squashed(data, 0, 3, options);
  options.raw_side = 24;
  data::EvalReader raw(data, 0, 3, options);
  const auto &found = squashed.next()->pixels, &wanted = raw.next()->pixels;
  ASSERT_EQ(found.elems(), wanted.elems());
  for (std::int64_t i = 0; i < found.elems(); ++i) ASSERT_NEAR(found.f32()[i], wanted.f32()[i], 1e-6) << i;
}

TEST_F(ProbeMpi, OneRankWithBadFeaturesStopsAll) {
  auto train = test::slice({1, 2, 3, 4}, {0, 1, 0, 1}, world);
  if (world.rank() == world.size() - 1) train.values.back() = INFINITY;
  const auto test = test::slice({1, 2}, {0, 1}, world);
  EXPECT_THROW(make_examples(world, train, test, {}), Error);
}

}  // namespace
}  // namespace seer::eval
