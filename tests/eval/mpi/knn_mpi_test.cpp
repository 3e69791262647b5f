// SPDX-License-Identifier: Apache-2.0
// k-NN gives the same results on any number of ranks as on one rank that holds everything.
#include <algorithm>

#include "../support.hpp"
#include "seer/base/error.hpp"
#include "seer/eval/confusion.hpp"
#include "seer/eval/knn.hpp"

namespace seer::eval {
namespace {

struct Case {
  std::uint64_t train, test;
};

TEST(KnnMpi, EqualsOneRank) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  constexpr std::size_t d = 33;
  constexpr std::int32_t kClasses = 6;
  for (const auto& [n_train, n_test] : {Case{157, 41}, Case{64, 64}, Case{3, 2}, Case{1, 1}}) {
    // Duplicates among the training rows, so that ties cross the ranks' slices.
    auto train = test::hash_fill(n_train * d, 11, 1.0);
    for (std::size_t i = 0; i < n_train; i += 3)
      std::copy_n(train.begin(), d, train.begin() + static_cast<std::ptrdiff_t>(i * d));
    const auto tests = test::hash_fill(n_test * d, 12, 1.0);
    std::vector<std::int32_t> train_labels(n_train), test_labels(n_test);
    for (std::size_t i = 0; i < n_train; ++i) train_labels[i] = static_cast<std::int32_t>(i * 7 % kClasses);
    for (std::size_t i = 0; i < n_test; ++i) test_labels[i] = static_cast<std::int32_t>(i % kClasses);
    const KnnOptions options{.k = {1, 5, 20, 200}, .temperature = {0.07}, .cosine = true, .block_rows = 10};

    const auto mine = test::slice(tests, test_labels, world);
    const auto shared = knn_votes(world, test::slice(train, train_labels, world), mine, kClasses, options);
    const auto whole = knn_votes(alone, test::slice(train, train_labels, alone), test::slice(tests, test_labels, alone),
                                 kClasses, options);
    for (std::size_t k = 0; k < options.k.size(); ++k) {
      for (std::size_t i = 0; i < mine.rows(); ++i) {
        const auto row = mine.first + i;
        EXPECT_EQ(shared[k].predicted[i], whole[k].predicted[row]) << "row " << row << " k " << options.k[k];
        for (std::size_t c = 0; c < kClasses; ++c) {
          const double expected = whole[k].votes[row * kClasses + c];
          EXPECT_NEAR(shared[k].votes[i * kClasses + c], expected, 1e-5 * std::abs(expected));
        }
      }
    }
    if (n_train < 10) continue;
    const auto a = knn_report(world, test::slice(train, train_labels, world), mine, options);
    const auto b =
        knn_report(alone, test::slice(train, train_labels, alone), test::slice(tests, test_labels, alone), options);
    EXPECT_EQ(a.train_rows, b.train_rows);
    EXPECT_EQ(a.test_rows, b.test_rows);
    for (std::size_t k = 0; k < options.k.size(); ++k) {
      EXPECT_DOUBLE_EQ(a.scores[k].top1, b.scores[k].top1);
      EXPECT_DOUBLE_EQ(a.scores[k].top5, b.scores[k].top5);
    }
  }
}

// Draws of few training rows, and what is confused with what, are the same whatever the number of ranks.
TEST(KnnMpi, FewRowsAndConfusionEqualOneRank) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  constexpr std::size_t kRows = 61, d = 7;
  const auto values = test::hash_fill(kRows * d, 21, 1.0);
  std::vector<std::int32_t> labels(kRows);
  for (std::size_t i = 0; i < kRows; ++i) labels[i] = static_cast<std::int32_t>(i * i % 5);
  const auto result = [&](const comm::Communicator& comm) {
    const auto all = test::slice(values, labels, comm);
    const auto few = few_rows(comm, all, {.fraction = 0.3, .per_class = 0, .seed = 2});
    const auto report = knn_report(comm, few, all, {.k = {3}});
    Confusion confusion;
    confusion.add(report.truth, report.scores[0].predicted);
    confusion.sum(comm);
    return std::pair(report.train_rows, confusion.cells());
  };
  const auto shared = result(world), whole = result(alone);
  EXPECT_EQ(shared.first, whole.first);
  EXPECT_EQ(shared.second, whole.second);
  EXPECT_GT(whole.second.size(), 5U);
}

TEST(KnnMpi, OneRankWithBadFeaturesStopsAll) {
  const auto world = comm::Communicator::world();
  const std::vector<std::int32_t> labels(8, 0);
  auto values = test::hash_fill(8 * 4, 5, 1.0);
  const auto test = test::slice(values, labels, world);
  values.back() = NAN;  // held by the last rank
  EXPECT_THROW(knn_votes(world, test::slice(values, labels, world), test, 1, {}), Error);
}

}  // namespace
}  // namespace seer::eval
