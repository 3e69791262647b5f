// SPDX-License-Identifier: Apache-2.0
// What a start goes on from.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/local.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/run/trainer.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/schedule.hpp"

namespace seer::run {

/// Collective: the nodes' own copies of checkpoints, null without checkpoint.local_dir. Those of earlier starts count
/// only where the run goes on by itself. Error(file), agreed.
std::unique_ptr<checkpoint::LocalSets> open_local_sets(const config::Config& config, const comm::Communicator& comm,
                                                       const PretrainOptions& options);

/// Collective: finds the checkpoint that the options ask for, or a newer one on the nodes' own disks, puts the learner
/// back to it. Nothing for a run that starts anew; then model.init_from has been read and a checkpoint rehearsed.
/// Error(input) where configuration and checkpoint cannot go together, Error(file) for damaged ones.
std::optional<checkpoint::State> resume(const config::Config& config, const comm::Communicator& comm,
                                        const PretrainOptions& options, train::Learner& learner,
                                        const checkpoint::LocalSets* local);

/// Collective, once the start is certain: puts the run folder's checkpoints of more updates than the run goes on from
/// aside, and removes the nodes' own. Error(file), agreed.
void put_newer_aside(const config::Config& config, const comm::Communicator& comm, std::int64_t update,
                     const checkpoint::LocalSets* local);

/// Collective: the learner as it was when `folder` was written, and the rest of what the run was. `verified`: as
/// checkpoint::load().
checkpoint::State restore(const comm::Communicator& comm, const std::string& folder, train::Learner& learner,
                          bool verified);

/// The schedule of a run of `total` updates over `images` images that goes on from a checkpoint. A cosine of another
/// length goes on from the checkpoint's rate, unless options.allow_changes names the length; either is a warning.
/// Error(input), agreed: fewer updates than the checkpoint has done. docs/numerics.md, "Another length".
train::Schedule schedule_from(const checkpoint::State& from, const config::Config& config, std::int64_t total,
                              std::uint64_t images, const PretrainOptions& options);

/// The shards of a data set as checkpoints hold them.
std::vector<checkpoint::Shard> shards_of(const data::BatchSource& source);
/// Warns where they are not those that the checkpoint was trained on.
void warn_of_other_shards(const checkpoint::State& from, const data::BatchSource& source);

}  // namespace seer::run
