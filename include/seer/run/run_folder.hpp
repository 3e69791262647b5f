// SPDX-License-Identifier: Apache-2.0
// The run folder during a run: its lock, configuration, log and records. A failure of the file system is a warning and
// never ends it: nothing here is needed to go on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/run/metrics.hpp"
#include "seer/run/run_lock.hpp"
#include "seer/run/tensorboard.hpp"
#include "seer/run/trainer.hpp"

namespace seer::run {

/// All ranks hold one. The root does the work, the others wait in the collectives.
class RunFolder {
 public:
  /// Collective. Makes the folder, takes its lock, starts the log. Error(input) if another run uses it, Error(file).
  RunFolder(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

  /// Collective. Call once the start is certain: with --resume never, moves earlier checkpoints aside. Writes
  /// config.toml and opens the records of a run that continues after `completed` updates. Error(file).
  void open_records(std::int64_t completed);

  /// Call between updates. Error(input), on the root only, if another run has taken over the folder. Makes a deleted
  /// folder again, with a warning.
  void tend(std::int64_t completed);

  /// If a record cannot be written, it is lost, with a warning.
  void write(const UpdateRecord& record);
  /// Writes a whole file; fails like write().
  void write(const std::string& name, const std::string& text);

 private:
  void prepare();
  void set_aside() const;
  void make_folder() const;
  void make_again(std::int64_t completed, bool lock_gone);
  void open_files(std::int64_t completed);
  std::string path(const char* name) const { return config_.log.run_dir + "/" + name; }

  const config::Config& config_;
  const comm::Communicator& comm_;
  bool anew_;
  std::optional<RunLock> lock_;  // root only, as all below
  std::optional<Metrics> metrics_;
  std::optional<EventFile> events_;
  bool deleted_ = false;
};

}  // namespace seer::run
