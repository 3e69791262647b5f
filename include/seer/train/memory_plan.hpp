// SPDX-License-Identifier: Apache-2.0
// What a rank will hold, before it holds it, and what to recompute so that it fits (method.md 7.2).
//
// The figures come from whole updates of the Learner itself on a planned machine (device/ledger.hpp): the same code
// asks the same arena for the same tensors in the same order.
#pragma once

#include <cstdint>
#include <memory>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/ledger.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/train/footprint.hpp"

namespace seer::train {

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

/// recompute = "none", "cheap", "block": that; "auto": the least extra arithmetic with which everything, `base_bytes`
/// (what the process holds already) included, fits the budget: first what is one pass over memory, then convolutions,
/// each where it frees most for its cost. Error(input) where nothing fits, naming the smallest budget that would do.
MemoryPlan plan_memory(const config::Config& config, Topology topology, std::int64_t budget_bytes,
                       std::int64_t base_bytes);

/// The same for a run on these ranks: the budget is parallel.memory_budget_bytes or what the least of them has left.
/// Collective; the same on all ranks. `readers`: what is known of the data set.
MemoryPlan plan_memory(const config::Config& config, const comm::Communicator& comm, data::Readers readers = {});

}  // namespace seer::train
