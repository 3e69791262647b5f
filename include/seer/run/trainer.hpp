// SPDX-License-Identifier: Apache-2.0
// A whole pre-training run: set-up, resume, the step loop, what is written down.
#pragma once

#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::run {

/// "auto": from the newest complete checkpoint of the run folder, else from the start. "never": from the start; earlier
/// checkpoints of the folder are moved aside. Otherwise the path of a checkpoint folder.
struct PretrainOptions {
  std::string resume = "auto";
  /// Keys, or sections, in which the configuration may differ from the checkpoint's though that makes it another run.
  std::vector<std::string> allow_changes;
  /// The same for data.global_batch: updates stay counted, the data go on behind the images seen, and the schedule,
  /// which counts updates, stays as configured.
  bool allow_batch_change = false;
  /// Print all keys of the configuration, not only those that differ from their defaults.
  bool verbose = false;
};

/// Collective. Returns ExitCode::ok when the run is complete, ExitCode::requeue when it was asked to stop and has
/// written its checkpoint. Throws Error (agreed where every rank meets it).
int pretrain(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

}  // namespace seer::run
