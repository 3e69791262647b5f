// SPDX-License-Identifier: Apache-2.0
// The figures of classification have the same bits on any number of ranks as on one rank that holds everything.
#include "../support.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::eval {
namespace {

TEST(MetricsMpi, EqualOneRank) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  constexpr std::size_t kClasses = 5;
  for (const std::size_t rows : {std::size_t{149}, std::size_t{3}}) {
    auto scores = test::hash_fill(rows * kClasses, 7, 1.0);
    for (std::size_t i = 0; i < scores.size(); i += 2) scores[i] = std::round(scores[i] * 3);  // ties across ranks
    std::vector<std::int8_t> truth(scores.size());
    for (std::size_t i = 0; i < truth.size(); ++i) truth[i] = static_cast<std::int8_t>(i * 7 % 3) - 1;
    std::vector<std::int32_t> labels(rows);
    for (std::size_t i = 0; i < rows; ++i) labels[i] = static_cast<std::int32_t>(i * 3 % kClasses);
    const auto first = slice_begin(rows, world.rank(), world.size());
    const auto count = slice_begin(rows, world.rank() + 1, world.size()) - first;
    const auto my_scores = std::span<const float>(scores).subspan(first * kClasses, count * kClasses);

    const auto whole = mean_average_precision(alone, scores, truth, kClasses);
    const auto shared = mean_average_precision(
        world, my_scores, std::span<const std::int8_t>(truth).subspan(first * kClasses, count * kClasses), kClasses);
    EXPECT_EQ(shared.all_points, whole.all_points);
    EXPECT_EQ(shared.eleven_points, whole.eleven_points);
    EXPECT_EQ(shared.per_class, whole.per_class);

    AccuracyCounter all(kClasses), mine(kClasses);
    all.add(scores, labels);
    mine.add(my_scores, std::span<const std::int32_t>(labels).subspan(first, count));
    const auto a = all.result(alone), b = mine.result(world);
    EXPECT_EQ(a.images, b.images);
    EXPECT_EQ(a.top1, b.top1);
    EXPECT_EQ(a.top5, b.top5);
    EXPECT_EQ(a.mean_per_class, b.mean_per_class);
    EXPECT_EQ(a.right_of, b.right_of);
  }
}

}  // namespace
}  // namespace seer::eval
