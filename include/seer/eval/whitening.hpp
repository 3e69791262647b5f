// SPDX-License-Identifier: Apache-2.0
// PCA whitening of rows of length one (method.md 8.8), learnt from one set and applied to others.
#pragma once

#include <cstdint>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

/// Scales the columns of each feature of every row to length one; rows of zeros stay. Error(numerics): not finite.
void make_unit(FeatureTable& table);

struct Whitening {
  std::int64_t inputs = 0, outputs = 0;
  std::vector<float> mean;        ///< [inputs]
  std::vector<float> projection;  ///< [outputs, inputs]: eigenvectors / sqrt(eigenvalue), largest eigenvalue first
};

/// Collective. The table has one feature, of rows of length one. Eigenvalues below 1e-5 of the largest count as that
/// much. `outputs`: 0 for all dimensions. Every rank needs inputs^2 doubles, rank 0 twice as much. Error(input): more
/// outputs than dimensions, or fewer than two images; Error(numerics): all rows are equal.
Whitening learn_whitening(const comm::Communicator& comm, const FeatureTable& table, std::int64_t outputs);

/// Replaces each row x by W (x - mean), scaled to length one.
void whiten(const Whitening& whitening, FeatureTable& table);

}  // namespace seer::eval
