// SPDX-License-Identifier: Apache-2.0
#include "seer/run/run_folder.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::run {
namespace {

namespace fs = std::filesystem;

void write_text(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream file(path);
  file << text;
  if (!file.flush()) {
    throw Error(ExitCode::file, fmt::format("cannot write {}: {}", path, std::strerror(errno)),
                "free space or choose another log.run_dir");
  }
}

/// The run can go on without what `write` writes: a failure is a warning, once for each reason.
template <class Write>
void or_warn(Write write) {
  try {
    write();
  } catch (const Error& e) {
    if (e.code() != ExitCode::file) throw;
    log::warn(fmt::format("{}; the run goes on without: {}", e.what(), e.remedy()));
  }
}

}  // namespace

RunFolder::RunFolder(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options)
    : config_(config), comm_(comm), anew_(options.resume == "never") {
  comm::agree(comm, "preparing the run folder", [&] {
    if (comm_.is_root()) prepare();
  });
}

void RunFolder::make_folder() const {
  std::error_code error;
  fs::create_directories(config_.log.run_dir, error);
  if (!error) return;
  throw Error(ExitCode::file, fmt::format("cannot make the run folder {}: {}", config_.log.run_dir, error.message()),
              "set log.run_dir to a folder you may write to");
}

void RunFolder::prepare() {
  make_folder();
  std::error_code error;
  if (const fs::path home = path("checkpoints"); fs::is_symlink(home, error) && !fs::exists(home, error)) {
    throw Error(
        ExitCode::file,
        fmt::format("{} is a link to {}, which is not there", home.string(), fs::read_symlink(home, error).string()),
        "make that folder, or mount its file system; or remove the link");
  }
  lock_.emplace(config_.log.run_dir);
  log::to_file(path("log.txt"));
}

void RunFolder::set_aside() const {
  const auto aside = checkpoint::set_aside_newer(config_.log.run_dir, -1, "metrics.jsonl");
  if (!aside.empty()) log::info(fmt::format("what the run before has left is now in {}", aside));
}

void RunFolder::open_records(std::int64_t completed) {
  comm::agree(comm_, "opening the run's records", [&] {
    if (!comm_.is_root()) return;
    if (anew_) set_aside();
    open_files(completed);
  });
}

void RunFolder::open_files(std::int64_t completed) {
  write_text(path("config.toml"), config::to_toml(config_));
  metrics_.emplace(config_.log.run_dir, completed);
  if (config_.log.tensorboard) events_.emplace(config_.log.run_dir, completed);
}

void RunFolder::tend(std::int64_t completed) {
  if (!lock_) return;
  const bool lock_gone = lock_->vanished();
  deleted_ = deleted_ || lock_gone;  // until everything is there again
  if (deleted_) or_warn([&] { make_again(completed, lock_gone); });
}

void RunFolder::make_again(std::int64_t completed, bool lock_gone) {
  make_folder();
  if (lock_gone) lock_->retake();
  log::to_file(path("log.txt"));
  open_files(completed);
  deleted_ = false;
  log::warn(
      fmt::format("{} was deleted under the run, and is made again after {} updates: checkpoints, metrics and log "
                  "until then are gone unless someone has moved them; the next checkpoint comes when it is due",
                  config_.log.run_dir, completed));
}

void RunFolder::write(const UpdateRecord& record) {
  if (metrics_) or_warn([&] { metrics_->write(record); });
  if (events_) or_warn([&] { events_->write(record); });
}

void RunFolder::write(const std::string& name, const std::string& text) {
  if (comm_.is_root()) or_warn([&] { write_text(path(name.c_str()), text); });
}

}  // namespace seer::run
