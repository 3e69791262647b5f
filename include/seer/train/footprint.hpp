// SPDX-License-Identifier: Apache-2.0
// The memory of a rank by purpose, and what its backward passes recompute.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "seer/nn/chain.hpp"

namespace seer::train {

/// [crop resolution][segment of the trunk].
using KeepTable = std::vector<std::vector<nn::Keep>>;

/// Bytes of one rank at its peak, by purpose.
struct Footprint {
  std::int64_t parameters = 0;  ///< and slots for those gathered from other ranks
  std::int64_t gradients = 0;   ///< and slots for those not yet summed
  std::int64_t momentum = 0;
  std::int64_t activations = 0;    ///< the arena with its gaps
  std::int64_t workspaces = 0;     ///< convolutions and matrix products; packed weights
  std::int64_t communication = 0;  ///< staging buffers of collectives
  std::int64_t data = 0;           ///< crops made ahead, and memory of the readers
  std::int64_t checkpoint = 0;     ///< copy that is being written
  std::int64_t other = 0;          ///< running statistics, queue; executable and libraries if known
  std::int64_t total() const {
    return parameters + gradients + momentum + activations + workspaces + communication + data + checkpoint + other;
  }
};
/// Names and bytes, in the table's order.
std::vector<std::pair<const char*, std::int64_t>> rows(const Footprint& footprint);
/// Summary of what is recomputed: "nothing in 40, cheap passes in 2, all in 0 segments and resolutions".
std::string to_text(const KeepTable& keep);
/// The table at the end of a run, for this rank. The row "libraries" is the part of the peak that no category holds.
std::string to_table(const Footprint& footprint, std::int64_t peak_resident_bytes);

struct MemoryPlan {
  KeepTable keep;
  Footprint footprint;
};

}  // namespace seer::train
