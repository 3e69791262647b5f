// SPDX-License-Identifier: Apache-2.0
// What a rank will hold, before it holds it, and what to recompute so that it fits (method.md 7.2).
//
// The figures come from whole updates of the Learner itself on a planned machine (device/ledger.hpp): the same code
// asks the same arena for the same tensors in the same order. Nothing here is collective; all ranks find the same.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/ledger.hpp"
#include "seer/dnn/backend.hpp"
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

/// What the host's libraries make for themselves while a run goes on: compiled primitives, and what HDF5 and MPI-IO
/// need to read shards and to write checkpoints. Measured, not planned (validation/results/plan.md).
constexpr std::int64_t kLibrariesGrowBytes = std::int64_t{26} << 20;

/// What a device's libraries take beside what is planned: the largest workspace of a convolution (1 GiB at most),
/// NCCL's buffers and staging. Not measured.
constexpr std::int64_t kDeviceLibrariesBytes = std::int64_t{1536} << 20;

/// Where a run is to take place.
struct Topology {
  int ranks = 1, ranks_per_node = 1;
  bool host_library = true;  ///< this build's own library computes there, so its memory is known
  bool on_device = false;    ///< what a device's memory holds: the copy for a checkpoint is the host's
  data::Readers readers = {};
};
/// Copies that a host's MPI makes of messages: of one round of a sum, and of what a scattered one receives.
std::int64_t message_copies_bytes(const config::Config& config, Topology topology);
/// Stands in for the library there.
std::shared_ptr<dnn::Backend> planned_backend(Topology topology);

/// A batch without pixels.
data::Batch planned_batch(const config::Config& config, int ranks);
/// What a host's source of batches holds: crops made ahead and their readers' images, or the crops of a crops file.
std::int64_t source_bytes(const config::Config& config, Topology topology);
/// Of a device: the batch that is computed on, the one on its way, and what makes it.
std::int64_t crops_on_device_bytes(const config::Config& config, int ranks);

struct MemoryPlan {
  KeepTable keep;
  Footprint footprint;
};

/// recompute = "none", "cheap", "block": that; "auto": the least extra arithmetic with which everything, `base_bytes`
/// (what the process holds already) included, fits the budget: first what is one pass over memory, then convolutions,
/// each where it frees most for its cost. Error(input) where nothing fits, naming the smallest budget that would do.
MemoryPlan plan_memory(const config::Config& config, Topology topology, std::int64_t budget_bytes,
                       std::int64_t base_bytes);

}  // namespace seer::train
