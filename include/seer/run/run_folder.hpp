// SPDX-License-Identifier: Apache-2.0
// The run folder while a run uses it: its lock, its configuration, log and records. What the file system does to it in
// mid-run is a warning, never the end: nothing here is needed to go on.
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

/// The root works, the other ranks wait at the collectives; both hold one.
class RunFolder {
 public:
  /// Collective: makes the folder, takes its lock, starts the log.
  /// Error(input) where another run uses it, Error(file).
  RunFolder(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

  /// Collective, once the start is certain: with --resume never moves earlier checkpoints aside; writes config.toml,
  /// opens the records of a run that goes on after so many updates. Error(file).
  void open_records(std::int64_t completed);

  /// Between updates. Error(input), on the root alone, where another run has taken the folder over. One that was
  /// deleted is made again, with a warning.
  void tend(std::int64_t completed);

  /// A record that cannot be written is lost, with a warning.
  void write(const UpdateRecord& record);
  /// A whole file, as write().
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
  std::optional<RunLock> lock_;  // the root's, as all below
  std::optional<Metrics> metrics_;
  std::optional<EventFile> events_;
  bool deleted_ = false;
};

}  // namespace seer::run
