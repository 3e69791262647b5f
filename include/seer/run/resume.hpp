// SPDX-License-Identifier: Apache-2.0
// Finds and loads the checkpoint from which a start continues.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/local.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/run/trainer.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/optimizer.hpp"

namespace seer::run {

/// Collective. Opens the nodes' own copies of checkpoints; null without checkpoint.local_dir. Copies of earlier starts
/// count only with --resume auto. Error(file), agreed.
std::unique_ptr<checkpoint::LocalSets> open_local_sets(const config::Config& config, const comm::Communicator& comm,
                                                       const PretrainOptions& options);

/// Collective. Replaces precision.compute = "auto" by what the run that goes on began with, according to its
/// config.toml, unless options.allow_changes names it; in a new run by what is fastest here.
void settle_precision(config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

/// Collective. Finds the checkpoint that the options ask for, or a newer one on the nodes' own disks, and loads the
/// learner from it. Returns nothing for a new run; then it has read model.init_from and rehearsed a checkpoint, if
/// configured. `classes`: of data.shards, if the method reads labels. Error(input) if configuration and checkpoint do
/// not fit together, or if the checkpoint's classes are others; Error(file) for damaged checkpoints.
std::optional<checkpoint::State> resume(const config::Config& config, const comm::Communicator& comm,
                                        const PretrainOptions& options, train::Learner& learner,
                                        const checkpoint::LocalSets* local, const std::vector<std::string>& classes);

/// Collective. Call once the start is certain: moves checkpoints of more than `update` updates aside, and removes those
/// on the nodes' disks. Error(file), agreed.
void put_newer_aside(const config::Config& config, const comm::Communicator& comm, std::int64_t update,
                     const checkpoint::LocalSets* local);

/// The schedule of a run of `total` updates over `images` images that continues from a checkpoint. A cosine of another
/// length continues from the checkpoint's rate, unless options.allow_changes names the length; either way it warns.
/// Error(input), agreed, if the checkpoint has done more updates than `total`. docs/numerics.md, "Another length".
train::Schedule schedule_from(const checkpoint::State& from, const config::Config& config, std::int64_t total,
                              std::uint64_t images, const PretrainOptions& options);

/// Warns if the source's shards are not those that the checkpoint was trained on.
void warn_of_other_shards(const checkpoint::State& from, const data::BatchSource& source);

}  // namespace seer::run
