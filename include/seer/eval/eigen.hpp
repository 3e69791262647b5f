// SPDX-License-Identifier: Apache-2.0
// Dense problems of symmetric matrices in double precision, through LAPACK. One thread of one rank computes them.
#pragma once

#include <cstdint>
#include <vector>

namespace seer::eval {

struct Eigen {
  std::vector<double> values;   ///< [n], ascending
  std::vector<double> vectors;  ///< [n, n], row i belongs to value i, rows have length one; empty unless asked for
};

/// Eigenvalues (and vectors) of a symmetric matrix [n, n], which is destroyed; only its part above the diagonal is
/// read. LAPACK's dsyevd: about 4/3 n^3 operations for the values alone. Error(numerics) if it is not finite.
Eigen symmetric_eigen(std::vector<double>& matrix, std::int64_t n, bool with_vectors);

/// The values x, ascending, for which a v = x b v has a solution: the eigenvalues of b^-1/2 a b^-1/2. Both [n, n],
/// symmetric and destroyed, b positive definite. LAPACK's dsygv. Error(numerics) if b is not, or one is not finite.
std::vector<double> relative_eigenvalues(std::vector<double>& a, std::vector<double>& b, std::int64_t n);

/// Solves a x = b for a positive definite matrix a [n, n], which is destroyed. b and the result: [columns, n], a row
/// for each right side. LAPACK's dposv. Error(numerics) if a is not positive definite, or not finite.
void solve_positive(std::vector<double>& a, std::int64_t n, std::vector<double>& b);

}  // namespace seer::eval
