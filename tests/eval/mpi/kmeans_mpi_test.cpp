// SPDX-License-Identifier: Apache-2.0
// k-means gives the same centres, up to rounding, on any number of ranks as on one that holds all rows.
#include "../support.hpp"
#include "seer/base/error.hpp"
#include "seer/eval/kmeans.hpp"

namespace seer::eval {
namespace {

TEST(KmeansMpi, EqualsOneRank) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  constexpr std::size_t d = 11;
  for (const auto& [rows, clusters] : {std::pair{777, 13}, std::pair{5, 5}, std::pair{3, 2}}) {
    auto values = test::hash_fill(static_cast<std::size_t>(rows) * d, 31, 1.0);
    for (std::size_t j = 0; j < d; ++j) values[d + j] = values[j];  // if both rows are centres, one becomes empty
    const auto mine = test::slice(values, std::vector<std::int32_t>(static_cast<std::size_t>(rows)), world).values;
    const auto shared = spherical_kmeans(world, mine, d, clusters),
               whole = spherical_kmeans(alone, values, d, clusters);
    ASSERT_EQ(shared.centres.size(), whole.centres.size());
    for (std::size_t i = 0; i < whole.centres.size(); ++i) EXPECT_NEAR(shared.centres[i], whole.centres[i], 1e-6);
    EXPECT_NEAR(shared.similarity, whole.similarity, 1e-6);
    EXPECT_EQ(shared.smallest, whole.smallest);
    EXPECT_EQ(shared.rounds, whole.rounds);
  }
}

TEST(KmeansMpi, OneRankWithBadRowsStopsAll) {
  const auto world = comm::Communicator::world();
  std::vector<float> rows(6, 1.0F);
  if (world.rank() == world.size() - 1) rows[5] = INFINITY;
  EXPECT_THROW(spherical_kmeans(world, rows, 3, 2), Error);
}

}  // namespace
}  // namespace seer::eval
