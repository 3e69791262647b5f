// SPDX-License-Identifier: Apache-2.0
// Sums over rows of features, in double precision, that need no row twice: for covariances and least squares.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::eval {

/// The number of rows x, the sum of x, and the sum of x x^T: 8 d^2 bytes.
class Moments {
 public:
  explicit Moments(std::int64_t dimension)
      : dimension_(dimension),
        sum_(static_cast<std::size_t>(dimension), 0.0),
        products_(static_cast<std::size_t>(dimension * dimension), 0.0) {}

  /// [n, dimension]. About n d^2 operations.
  void add(std::span<const float> rows) { add_rows(rows.data(), rows.size()); }
  void add(std::span<const double> rows) { add_rows(rows.data(), rows.size()); }
  /// Collective, at most once: the sums over all ranks, on every rank.
  void all_reduce(const comm::Communicator& comm);

  std::int64_t dimension() const { return dimension_; }
  std::int64_t rows() const { return rows_; }
  const std::vector<double>& sum() const { return sum_; }
  /// [d, d]; only the part on and above the diagonal is set.
  const std::vector<double>& products() const { return products_; }
  /// The sum of (x - mean) (x - mean)^T, in the same part.
  std::vector<double> centred() const;

 private:
  template <class T>
  void add_rows(const T* rows, std::size_t elems);

  std::int64_t dimension_, rows_ = 0;
  std::vector<double> sum_, products_;
  std::vector<double> block_;  ///< rows as doubles
};

}  // namespace seer::eval
