// SPDX-License-Identifier: Apache-2.0
// A whole pre-training run: set-up, resume, the step loop, records.
#pragma once

#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::run {

/// resume = "auto": from the newest complete checkpoint in the run folder, else from the start. "never": from the
/// start; earlier checkpoints in the folder are moved aside. Otherwise the path of a checkpoint folder.
struct PretrainOptions {
  std::string resume = "auto";
  /// Keys, or sections, that may differ from the checkpoint's configuration although that makes it another run.
  std::vector<std::string> allow_changes;
  /// The same for data.global_batch: the count of updates stays, the data continue after the images seen, and the
  /// schedule, which counts updates, stays as configured.
  bool allow_batch_change = false;
  /// Print all keys of the configuration, not only those that differ from their defaults.
  bool verbose = false;
};

/// Collective. Returns ExitCode::ok when the run is complete, ExitCode::requeue when it was asked to stop and has
/// written its checkpoint. Throws Error (agreed if every rank meets it).
int pretrain(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

}  // namespace seer::run
