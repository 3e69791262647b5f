// SPDX-License-Identifier: Apache-2.0
// Predicts the memory of a rank, and chooses what to recompute so that it fits (method.md 7.2).
//
// The figures come from whole updates of the real Learner on a planned machine (device/ledger.hpp): the same code
// requests the same tensors from the same arena in the same order.
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

/// Memory that the host's libraries allocate during a run: compiled primitives, and what HDF5 and MPI-IO need to read
/// shards and write checkpoints. Measured, not planned (validation/results/plan.md).
constexpr std::int64_t kLibrariesGrowBytes = std::int64_t{26} << 20;

/// Memory of a device's libraries beside the plan: the largest workspace of a convolution (1 GiB at most), NCCL's
/// buffers and staging. Not measured.
constexpr std::int64_t kDeviceLibrariesBytes = std::int64_t{1536} << 20;

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
/// Memory of a source of batches on the host: crops made ahead and the readers' images, or the crops of a crops file.
std::int64_t source_bytes(const config::Config& config, Topology topology);
/// On a device: the batch in use, the next one, and the memory to make it.
std::int64_t crops_on_device_bytes(const config::Config& config, int ranks);

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
