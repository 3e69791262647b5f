// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/kmeans.hpp"

#include <algorithm>
#include <numeric>

#include "seer/base/error.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

using Rows = std::vector<std::vector<double>>;

void normalize(std::vector<double>& row) {
  const double length = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
  for (double& x : row) x /= length;
}

/// The definition, in double precision, with loops. Fails if a cluster becomes empty.
Rows naive_kmeans(Rows rows, std::size_t k, double& similarity) {
  for (auto& row : rows) normalize(row);
  Rows centres;
  for (std::size_t c = 0; c < k; ++c) centres.push_back(rows[rows.size() * c / k]);
  std::vector<std::size_t> of(rows.size(), k);
  for (bool changed = true; changed;) {
    changed = false;
    similarity = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      double best = -2;
      std::size_t at = 0;
      for (std::size_t c = 0; c < k; ++c) {
        const double product = std::inner_product(rows[i].begin(), rows[i].end(), centres[c].begin(), 0.0);
        if (product <= best) continue;
        best = product;
        at = c;
      }
      changed = changed || of[i] != at;
      of[i] = at;
      similarity += best / static_cast<double>(rows.size());
    }
    if (!changed) break;
    for (std::size_t c = 0; c < k; ++c) {
      std::vector<double> sum(rows[0].size());
      EXPECT_NE(std::ranges::count(of, c), 0);
      for (std::size_t i = 0; i < rows.size(); ++i)
        for (std::size_t j = 0; of[i] == c && j < sum.size(); ++j) sum[j] += rows[i][j];
      normalize(sum);
      centres[c] = sum;
    }
  }
  return centres;
}

TEST(Kmeans, EqualsTheDefinition) {
  constexpr std::size_t kRows = 131, d = 9, k = 5;
  const auto values = test::hash_fill(kRows * d, 4, 3.0);
  Rows rows(kRows);
  for (std::size_t i = 0; i < kRows; ++i) rows[i].assign(&values[i * d], &values[i * d] + d);
  double similarity = 0;
  const auto expected = naive_kmeans(rows, k, similarity);
  const auto found = spherical_kmeans(comm::Communicator::world(), values, d, k, 1000);
  for (std::size_t c = 0; c < k; ++c)
    for (std::size_t j = 0; j < d; ++j) EXPECT_NEAR(found.centres[c * d + j], expected[c][j], 1e-6) << c;
  EXPECT_NEAR(found.similarity, similarity, 1e-6);
  EXPECT_LE(found.smallest * static_cast<std::int64_t>(k), static_cast<std::int64_t>(kRows));
}

// All rows but the last two are alike, so three of four centres start equal, and two of them lose all rows.
TEST(Kmeans, EmptyClustersTakeTheWorstFittingRows) {
  std::vector<float> rows;
  for (int i = 0; i < 20; ++i) rows.insert(rows.end(), {2, 0, 0});
  rows.insert(rows.end(), {0.1F, 1, 0, 0, 0, 5});
  const auto found = spherical_kmeans(comm::Communicator::world(), rows, 3, 3);
  EXPECT_EQ(found.smallest, 1);
  EXPECT_EQ(found.largest, 20);
  EXPECT_NEAR(found.similarity, 1, 1e-6);
}

TEST(Kmeans, RefusesTooFewRowsAndRowsThatAreNotFinite) {
  const auto world = comm::Communicator::world();
  EXPECT_THROW(spherical_kmeans(world, {1, 0, 0, 1}, 2, 3), Error);
  EXPECT_THROW(spherical_kmeans(world, {1, 0, NAN, 1}, 2, 2), Error);
}

}  // namespace
}  // namespace seer::eval
