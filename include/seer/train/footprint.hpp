// SPDX-License-Identifier: Apache-2.0
// The memory of a rank by what it is for, and what its backward passes compute again.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "seer/nn/chain.hpp"

namespace seer::train {

/// [crop resolution][segment of the trunk].
using KeepTable = std::vector<std::vector<nn::Keep>>;

/// Bytes of one rank, at its peak, by what they are for.
struct Footprint {
  std::int64_t parameters = 0;  ///< with the slots for those gathered from other ranks
  std::int64_t gradients = 0;   ///< with the slots for those not yet summed
  std::int64_t momentum = 0;
  std::int64_t activations = 0;    ///< the arena, gaps included
  std::int64_t workspaces = 0;     ///< of convolutions and products, packed weights
  std::int64_t communication = 0;  ///< staging of collectives
  std::int64_t data = 0;           ///< crops made ahead, and what their readers hold
  std::int64_t checkpoint = 0;     ///< copy of what is being written
  std::int64_t other = 0;          ///< running statistics, queue; executable and libraries where known
  std::int64_t total() const {
    return parameters + gradients + momentum + activations + workspaces + communication + data + checkpoint + other;
  }
};
/// Name and bytes, in the order of a table.
std::vector<std::pair<const char*, std::int64_t>> rows(const Footprint& footprint);
/// What recomputation comes to: "nothing in 40, cheap passes in 2, all in 0 segments and resolutions".
std::string to_text(const KeepTable& keep);
/// The table at the end of a run, of its first rank. What the categories do not hold is executable and libraries.
std::string to_table(const Footprint& footprint, std::int64_t peak_resident_bytes);

struct MemoryPlan {
  KeepTable keep;
  Footprint footprint;
};

}  // namespace seer::train
