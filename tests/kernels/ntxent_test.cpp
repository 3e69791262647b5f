// SPDX-License-Identifier: Apache-2.0
// NT-Xent's kernels against plain loops in double, at odd sizes, and the gradient against finite differences.
#include "seer/kernels/ntxent.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#if defined(SEER_KERNELS_CUDA)
#include <tuple>

#include "both_spaces.hpp"
#endif

namespace seer::kernels {
namespace {

/// One rank's part of all rows: embeddings in double, which are not of length one: the formulas do not need it.
struct Case {
  std::int64_t ranks, rank, images, crops, dim;
  double temperature;
  std::vector<double> z;
  std::int64_t rows() const { return images * crops; }
  std::int64_t columns() const { return ranks * rows(); }
  bool positive(std::int64_t i, std::int64_t j) const {
    return i != j && i / rows() == j / rows() && i % images == j % images;
  }
  double product(std::int64_t i, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t d = 0; d < dim; ++d)
      sum += z[static_cast<std::size_t>(i * dim + d)] * z[static_cast<std::size_t>(j * dim + d)];
    return sum;
  }
  double log_sum(std::int64_t i, bool positives) const {
    double sum = 0;
    for (std::int64_t j = 0; j < columns(); ++j) {
      if (j != i && (!positives || positive(i, j))) sum += std::exp(product(i, j) / temperature);
    }
    return std::log(sum);
  }
  /// Mean over all rows.
  double loss() const {
    double sum = 0;
    for (std::int64_t i = 0; i < columns(); ++i) sum += log_sum(i, false) - log_sum(i, true);
    return sum / static_cast<double>(columns());
  }
};

TEST(Ntxent, SumsAndGradientMatchLoopsAndDifferences) {
  for (Case c : {Case{1, 0, 1, 2, 3, 0.5, {}}, Case{1, 0, 5, 2, 7, 0.1, {}}, Case{3, 1, 3, 2, 5, 0.2, {}},
                 Case{2, 1, 4, 3, 6, 0.07, {}}, Case{4, 3, 13, 5, 9, 1.0, {}}}) {
    SCOPED_TRACE(std::to_string(c.ranks) + " ranks, " + std::to_string(c.images) + " images");
    for (std::int64_t i = 0; i < c.columns() * c.dim; ++i)
      c.z.push_back(0.4 * std::sin(1.7 * static_cast<double>(i + 1)));
    const std::int64_t rows = c.rows(), columns = c.columns(), first = c.rank * rows;
    std::vector<float> products, log_all, log_positive, mine_all(static_cast<std::size_t>(rows)),
        mine_positive(mine_all);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) products.push_back(static_cast<float>(c.product(first + i, j)));
    }
    for (std::int64_t j = 0; j < columns; ++j) {
      log_all.push_back(static_cast<float>(c.log_sum(j, false)));
      log_positive.push_back(static_cast<float>(c.log_sum(j, true)));
    }
    Queue queue;
    const Tensor p{.data = products.data(), .shape = {rows, 1, 1, columns}};
    const Contrast contrast{c.images, c.crops, first, static_cast<float>(c.temperature)};
    double sums[2] = {};
    ntxent_sums(queue, p, contrast, mine_all.data(), mine_positive.data(), sums);
    double loss = 0, hits = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      EXPECT_NEAR(mine_all[at], c.log_sum(first + i, false), 2e-5);
      EXPECT_NEAR(mine_positive[at], c.log_sum(first + i, true), 2e-5);
      loss += c.log_sum(first + i, false) - c.log_sum(first + i, true);
      double best = -1e30, best_positive = -1e30;
      for (std::int64_t j = 0; j < columns; ++j) {
        if (j == first + i) continue;
        best = std::max(best, c.product(first + i, j));
        if (c.positive(first + i, j)) best_positive = std::max(best_positive, c.product(first + i, j));
      }
      hits += best_positive >= best ? 1 : 0;
    }
    EXPECT_NEAR(sums[0], loss, 1e-5 * (1 + loss));
    EXPECT_EQ(sums[1], hits);

    constexpr double kWeight = 3;
    ntxent_gradient(queue, p, contrast, log_all.data(), log_positive.data(), kWeight / static_cast<double>(columns));
    for (std::int64_t i = 0; i < rows; i += 2) {
      for (std::int64_t d = 0; d < c.dim; d += 2) {
        double found = 0;
        for (std::int64_t j = 0; j < columns; ++j) {
          found += static_cast<double>(products[static_cast<std::size_t>(i * columns + j)]) *
                   c.z[static_cast<std::size_t>(j * c.dim + d)];
        }
        auto& place = c.z[static_cast<std::size_t>((first + i) * c.dim + d)];
        const double start = place, h = 1e-5;
        place = start + h;
        const double above = c.loss();
        place = start - h;
        const double below = c.loss();
        place = start;
        EXPECT_NEAR(found, kWeight * (above - below) / (2 * h), 2e-5);
      }
    }
  }
}

#if defined(SEER_KERNELS_CUDA)
TEST(Ntxent, OnADeviceAsOnTheHost) {
  SEER_NEEDS_DEVICE();
  for (const auto& [ranks, images, crops] : {std::tuple{1, 3, 2}, std::tuple{4, 13, 3}, std::tuple{8, 64, 2}}) {
    const std::int64_t rows = images * crops, columns = ranks * rows, first = (ranks - 1) * rows;
    test::expect_same_on_device(2e-5, [&](test::Workspace& w) {
      const Tensor products = w.tensor(test::Values({rows, 1, 1, columns}, 3, 1));
      auto* const all = w.given(test::Values({1, 1, 1, columns}, 4, 1, 6).data);
      auto* const positive = w.given(test::Values({1, 1, 1, columns}, 5, 1, 3).data);
      auto* const sums = w.room<double>(2);
      const Contrast contrast{images, crops, first, 0.2F};
      ntxent_sums(w.queue, products, contrast, all + first, positive + first, sums);
      w.keep("log_all", all, test::at(columns));
      w.keep("log_positive", positive, test::at(columns));
      w.keep("sums", sums, 2);
      ntxent_gradient(w.queue, products, contrast, all, positive, 1.0 / static_cast<double>(columns));
      w.keep("gradient", products);
    });
  }
}
#endif

}  // namespace
}  // namespace seer::kernels
