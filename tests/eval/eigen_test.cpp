// SPDX-License-Identifier: Apache-2.0
// Symmetric problems against products written out.
#include "seer/eval/eigen.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "seer/base/error.hpp"
#include "seer/base/random.hpp"

namespace seer::eval {
namespace {

using Matrix = std::vector<double>;

double& at(Matrix& m, std::int64_t n, std::int64_t i, std::int64_t j) {
  return m[static_cast<std::size_t>(i * n + j)];
}

/// A^T A + shift I of a random matrix.
Matrix positive(std::int64_t n, std::uint64_t seed, double shift) {
  Random random(seed, Purpose::test);
  Matrix half(static_cast<std::size_t>(n * n)), out(half.size(), 0.0);
  for (auto& x : half) x = random.normal();
  for (std::int64_t i = 0; i < n; ++i) {
    at(out, n, i, i) = shift;
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = 0; k < n; ++k) at(out, n, i, j) += at(half, n, k, i) * at(half, n, k, j);
  }
  return out;
}

TEST(Eigen, VectorsAreMappedToMultiplesOfThemselves) {
  for (const std::int64_t n : {1, 2, 7, 33}) {
    auto matrix = positive(n, 3, -2.0);  // some values are negative
    auto work = matrix;
    const auto eigen = symmetric_eigen(work, n, true);
    ASSERT_EQ(eigen.values.size(), static_cast<std::size_t>(n));
    EXPECT_TRUE(std::is_sorted(eigen.values.begin(), eigen.values.end()));
    for (std::int64_t v = 0; v < n; ++v) {
      const auto* vector = eigen.vectors.data() + v * n;
      EXPECT_NEAR(std::inner_product(vector, vector + n, vector, 0.0), 1, 1e-12);
      for (std::int64_t i = 0; i < n; ++i) {
        const double image = std::inner_product(vector, vector + n, matrix.begin() + i * n, 0.0);
        EXPECT_NEAR(image, eigen.values[static_cast<std::size_t>(v)] * vector[i], 1e-11 * static_cast<double>(n));
      }
    }
    const auto alone = symmetric_eigen(matrix, n, false);
    EXPECT_TRUE(alone.vectors.empty());
    for (std::size_t i = 0; i < alone.values.size(); ++i) EXPECT_NEAR(alone.values[i], eigen.values[i], 1e-11);
  }
}

TEST(Eigen, RelativeValuesOfDiagonalMatricesAreQuotients) {
  Matrix a = {6, 0, 0, 0, 1, 0, 0, 0, 8}, b = {2, 0, 0, 0, 4, 0, 0, 0, 1};
  const auto values = relative_eigenvalues(a, b, 3);
  EXPECT_NEAR(values[0], 0.25, 1e-14);
  EXPECT_NEAR(values[1], 3, 1e-14);
  EXPECT_NEAR(values[2], 8, 1e-14);
}

TEST(Eigen, RelativeValuesAreThoseOfTheWhitenedMatrix) {
  constexpr std::int64_t n = 9;
  auto a = positive(n, 5, 0), b = positive(n, 6, 0.5);
  auto b_copy = b;
  const auto eigen = symmetric_eigen(b_copy, n, true);
  Matrix root(n * n, 0.0), half(n * n, 0.0), whitened(n * n, 0.0);  // root: b^-1/2
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::size_t v = 0; v < static_cast<std::size_t>(n); ++v)
        at(root, n, i, j) += eigen.vectors[v * n + static_cast<std::size_t>(i)] *
                             eigen.vectors[v * n + static_cast<std::size_t>(j)] / std::sqrt(eigen.values[v]);
  const auto multiply = [](Matrix& x, Matrix& y, Matrix& out) {
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        for (std::int64_t k = 0; k < n; ++k) at(out, n, i, j) += at(x, n, i, k) * at(y, n, k, j);
  };
  multiply(root, a, half);
  multiply(half, root, whitened);
  const auto wanted = symmetric_eigen(whitened, n, false).values;
  const auto found = relative_eigenvalues(a, b, n);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-9 * wanted.back());
}

TEST(Eigen, SolvesForSeveralRightSides) {
  constexpr std::int64_t n = 11;
  auto a = positive(n, 7, 1.0);
  Matrix x(3 * n), b(3 * n, 0.0);
  std::iota(x.begin(), x.end(), -5.0);
  for (std::int64_t c = 0; c < 3; ++c)
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t k = 0; k < n; ++k) at(b, n, c, i) += at(a, n, i, k) * at(x, n, c, k);
  solve_positive(a, n, b);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(b[i], x[i], 1e-9);
}

TEST(Eigen, RefusesWhatHasNoSolution) {
  const auto code_of = [](const auto& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  Matrix nan = {1, 0, 0, std::numeric_limits<double>::quiet_NaN()}, indefinite = {1, 0, 0, -1}, one = {1, 0, 0, 1};
  Matrix right = {1, 1};
  EXPECT_EQ(code_of([&] { symmetric_eigen(nan, 2, false); }), ExitCode::numerics);
  EXPECT_EQ(code_of([&] { relative_eigenvalues(one, indefinite, 2); }), ExitCode::numerics);
  EXPECT_EQ(code_of([&] { solve_positive(indefinite, 2, right); }), ExitCode::numerics);
}

}  // namespace
}  // namespace seer::eval
