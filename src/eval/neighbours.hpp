// SPDX-License-Identifier: Apache-2.0
// The training rows nearest to each test row, over all ranks. Training rows are never gathered: their owners send them
// in blocks. Besides its two tables, a rank holds one block, one chunk of test rows, and the neighbours found so far.
#pragma once

#include <cstdint>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/eval/knn.hpp"

namespace seer::eval {

struct Neighbour {
  float similarity;
  std::int32_t label;
  std::uint64_t row;  ///< in the training set
};

struct Neighbours {
  std::vector<std::vector<Neighbour>> of;  ///< for each test row of this rank, the nearest first
  double unit = 1;                         ///< multiplies the similarities
};

/// Collective: the neighbours that vote, at most the largest of options.k. Rows of equal similarity are in the order of
/// the training set. Errors as knn_votes().
Neighbours nearest_rows(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                        const KnnOptions& options);

}  // namespace seer::eval
