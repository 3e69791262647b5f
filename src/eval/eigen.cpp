// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/eigen.hpp"

#include <fmt/format.h>
#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr std::int64_t kMost = 32000;  ///< LAPACK counts the elements of a workspace of 2 n^2 in 32 bits

lapack_int checked(const std::vector<double>& matrix, std::int64_t n) {
  ensure(n > 0 && matrix.size() == static_cast<std::size_t>(n * n), "a square matrix");
  if (n > kMost)
    throw Error(ExitCode::input, fmt::format("a symmetric matrix of {} rows; LAPACK takes up to {}", n, kMost),
                "choose features of fewer dimensions");
  if (!std::ranges::all_of(matrix, [](double x) { return std::isfinite(x); }))
    throw Error(ExitCode::numerics, "a symmetric matrix has values that are not finite",
                "these features have diverged; take an earlier checkpoint");
  return static_cast<lapack_int>(n);
}

void require_success(lapack_int info, const char* what) {
  if (info != 0)
    throw Error(ExitCode::numerics, fmt::format("LAPACK: {} failed (info {})", what, info),
                "features of nearly no variance have no such figure");
}

}  // namespace

// Row-major above the diagonal is column-major below it. Columns of the result are the vectors: rows for us.
Eigen symmetric_eigen(std::vector<double>& matrix, std::int64_t n, bool with_vectors) {
  const auto rows = checked(matrix, n);
  Eigen out;
  out.values.resize(static_cast<std::size_t>(n));
  require_success(
      LAPACKE_dsyevd(LAPACK_COL_MAJOR, with_vectors ? 'V' : 'N', 'L', rows, matrix.data(), rows, out.values.data()),
      "the eigenproblem of a symmetric matrix");
  if (with_vectors) out.vectors = std::move(matrix);
  return out;
}

std::vector<double> relative_eigenvalues(std::vector<double>& a, std::vector<double>& b, std::int64_t n) {
  const auto rows = checked(a, n);
  checked(b, n);
  std::vector<double> out(static_cast<std::size_t>(n));
  require_success(LAPACKE_dsygv(LAPACK_COL_MAJOR, 1, 'N', 'L', rows, a.data(), rows, b.data(), rows, out.data()),
                  "the eigenproblem of two symmetric matrices");
  return out;
}

void solve_positive(std::vector<double>& a, std::int64_t n, std::vector<double>& b) {
  const auto rows = checked(a, n);
  const auto columns = static_cast<lapack_int>(b.size() / static_cast<std::size_t>(n));
  require_success(LAPACKE_dposv(LAPACK_COL_MAJOR, 'L', rows, columns, a.data(), rows, b.data(), rows),
                  "the solution of a symmetric system");
}

}  // namespace seer::eval
