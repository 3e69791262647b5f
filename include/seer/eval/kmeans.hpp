// SPDX-License-Identifier: Apache-2.0
// Spherical k-means over the rows of all ranks (Dhillon and Modha 2001; method.md 8.9).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::eval {

struct Clusters {
  std::vector<float> centres;  ///< [clusters, columns], rows of length one; the same on all ranks
  double similarity = 0;       ///< mean, over all rows, of the product with the row's centre
  std::int64_t rounds = 0;
  std::int64_t smallest = 0, largest = 0;  ///< rows of a cluster
};

/// Collective. `rows`: this rank's slice [n, columns] of all rows, in rank order; they are brought to length one. The
/// centres start as rows at equal distances in the order of all rows. In each round every row joins the centre with the
/// largest product (of equal ones the first), and a centre becomes the mean of its rows, of length one. A centre
/// without rows becomes the row that fits its own centre worst. Ends when no row changes, or after `most_rounds`. The
/// result does not depend on the number of ranks, up to rounding. Holds no row of another rank. Error(input), agreed:
/// fewer rows than clusters. Error(numerics), agreed: a row is not finite.
Clusters spherical_kmeans(const comm::Communicator& comm, std::vector<float> rows, std::int64_t columns,
                          std::int64_t clusters, std::int64_t most_rounds = 25);

}  // namespace seer::eval
