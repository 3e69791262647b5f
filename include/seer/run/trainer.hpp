// SPDX-License-Identifier: Apache-2.0
// A whole pre-training run: set-up, resume, the step loop, records.
#pragma once

#include <cstdint>
#include <optional>
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

/// The run that settings are for.
struct Setting {
  std::uint64_t images = 0;  ///< in the data set
  std::int64_t updates = 0;  ///< in the run
  std::int64_t ranks = 1;
  std::optional<double> job_ends_s{};  ///< from now, if the scheduler says so
};

/// Finds settings that are allowed but probably not intended. A line for each one without effect or sense in this run:
/// key, value, and the limit that it exceeds.
std::vector<std::string> doubts(const config::Config& config, const Setting& run);

}  // namespace seer::run
