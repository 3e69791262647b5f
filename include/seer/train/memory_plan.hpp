// SPDX-License-Identifier: Apache-2.0
// The memory of a rank by purpose: predicts it, and chooses what to recompute so that it fits (method.md 7.2).
//
// The figures come from whole updates of the real Learner on a planned machine (device/ledger.hpp): the same code
// requests the same tensors from the same arena in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/dnn/backend.hpp"
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
  std::int64_t total() const;
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

/// Memory that the host's libraries allocate during a run: compiled primitives, and what HDF5 and MPI-IO need to read
/// shards and write checkpoints. Measured, not planned (validation/results/plan.md).
constexpr std::int64_t kLibrariesGrowBytes = std::int64_t{26} << 20;

/// The place of a run.
struct Topology {
  int ranks = 1, ranks_per_node = 1;
  bool host_library = true;  ///< it computes with this build's own library, so the library's memory is known
  bool on_device = false;    ///< plan a device's memory; the copy for a checkpoint is on the host
  data::Readers readers = {};
};
/// Copies of messages that MPI makes on the host: one round of an all-reduce, and what a reduce-scatter receives.
std::int64_t message_copies_bytes(const config::Config& config, Topology topology);
/// Stands in for the library of that place.
std::shared_ptr<dnn::Backend> planned_backend(Topology topology);

/// A batch with shapes and no pixels.
data::Batch planned_batch(const config::Config& config, int ranks);
/// recompute = "none", "cheap" or "block" is taken as it is. "auto" finds the least extra arithmetic with which
/// everything, including `base_bytes` (what the process holds already), fits the budget: it first recomputes what is
/// one pass over memory, then convolutions, each time what frees most for its cost. Error(input) if nothing fits,
/// naming the smallest budget that would.
MemoryPlan plan_memory(const config::Config& config, Topology topology, std::int64_t budget_bytes,
                       std::int64_t base_bytes);

/// The same for a run on these ranks. The budget is parallel.memory_budget_bytes, or the smallest free memory of a
/// rank. Collective; the result is the same on all ranks. `readers`: what is known about the data set.
MemoryPlan plan_memory(const config::Config& config, const comm::Communicator& comm, data::Readers readers = {});

}  // namespace seer::train
