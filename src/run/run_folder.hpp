// SPDX-License-Identifier: Apache-2.0
// The run folder during a run: its lock, configuration, log and records. A failure of the file system is a warning and
// never ends it: nothing here is needed to go on.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/run/records.hpp"
#include "seer/run/run_lock.hpp"
#include "seer/run/trainer.hpp"

namespace seer::run {

/// All ranks hold one. The root does the work, the others wait in the collectives.
class RunFolder {
 public:
  /// Collective. Makes the folder, takes its lock, starts the log. Error(input) if another run uses it, Error(file).
  RunFolder(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options)
      : config_(config), comm_(comm), anew_(options.resume == "never") {
    comm::agree(comm, "preparing the run folder", [&] {
      if (!comm_.is_root()) return;
      make_folder();
      std::error_code error;
      if (const std::filesystem::path home = path("checkpoints");
          std::filesystem::is_symlink(home, error) && !std::filesystem::exists(home, error))
        throw Error(ExitCode::file,
                    fmt::format("{} is a link to {}, which does not exist", home.string(),
                                std::filesystem::read_symlink(home, error).string()),
                    "make that folder, mount its file system, or remove the link");
      lock_.emplace(config_.log.run_dir);
      log::to_file(path("log.txt"));
    });
  }

  /// Collective. Call once the start is certain: with --resume never, moves earlier checkpoints aside. Writes
  /// config.toml and opens the records of a run that continues after `completed` updates. Error(file).
  void open_records(std::int64_t completed) {
    comm::agree(comm_, "opening the run's records", [&] {
      if (!comm_.is_root()) return;
      const auto aside = anew_ ? checkpoint::set_aside_newer(config_.log.run_dir, -1, "metrics.jsonl") : "";
      if (!aside.empty()) log::info(fmt::format("the files of the run before are now in {}", aside));
      open_files(completed);
    });
  }

  /// Call between updates. Error(input), on the root only, if another run has the folder now. Remakes a deleted one.
  void tend(std::int64_t completed) {
    if (!lock_) return;
    const bool lock_gone = lock_->vanished();
    deleted_ = deleted_ || lock_gone;  // until everything is there again
    if (!deleted_) return;
    or_warn([&] {
      make_folder();
      if (lock_gone) lock_->retake();
      log::to_file(path("log.txt"));
      open_files(completed);
      deleted_ = false;
      log::warn(
          fmt::format("somebody deleted or moved {} during the run. It is made again after {} updates, without the "
                      "earlier checkpoints, metrics and log. The next checkpoint comes when it is due",
                      config_.log.run_dir, completed));
    });
  }

  /// As below. A test that the records have is not written again.
  void write(const TestRecord& record) {
    if (!metrics_ || !metrics_->has_test(record.update)) write<TestRecord>(record);
  }
  /// If a record cannot be written, it is lost, with a warning.
  template <class Record>
  void write(const Record& record) {
    if (metrics_) or_warn([&] { metrics_->write(record); });
    if (events_) or_warn([&] { events_->write(record); });
  }
  /// Writes a whole file; fails like write().
  void write(const std::string& name, const std::string& text) {
    if (comm_.is_root()) or_warn([&] { checkpoint::write_text(path(name), text); });
  }

 private:
  /// The run can go on without what `write` writes: a failure is a warning, once for each reason.
  static void or_warn(const auto& write) {
    try {
      write();
    } catch (const Error& e) {
      if (e.code() != ExitCode::file) throw;
      const auto& remedy = e.remedy().empty() ? "free space or choose another log.run_dir" : e.remedy();
      log::warn(fmt::format("{}; the run goes on without this file: {}", e.what(), remedy));
    }
  }
  void make_folder() const {
    std::error_code error;
    std::filesystem::create_directories(config_.log.run_dir, error);
    if (!error) return;
    throw Error(ExitCode::file, fmt::format("cannot make the run folder {}: {}", config_.log.run_dir, error.message()),
                "set log.run_dir to a folder that you may write to");
  }
  void open_files(std::int64_t completed) {
    checkpoint::write_text(path("config.toml"), config::to_toml(config_));
    metrics_.emplace(config_.log.run_dir, completed);
    if (config_.log.tensorboard) events_.emplace(config_.log.run_dir, completed);
  }
  std::string path(const std::string& name) const { return config_.log.run_dir + "/" + name; }

  const config::Config& config_;
  const comm::Communicator& comm_;
  bool anew_;
  std::optional<RunLock> lock_;  // root only, as all below
  std::optional<Metrics> metrics_;
  std::optional<EventFile> events_;
  bool deleted_ = false;
};

}  // namespace seer::run
