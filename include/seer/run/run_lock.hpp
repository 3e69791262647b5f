// SPDX-License-Identifier: Apache-2.0
// Allows one run at a time in a run folder. run_dir/lock says who uses it (docs/formats.md). A lock of the file system
// (flock) protects it, and ends with the process, however that ends. Where flock does not reach other nodes, a
// heartbeat shows whether the owner is alive: a thread touches the file every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace seer::run {

/// The process that uses a run folder. The fields distinguish it from any other, on any machine, now or later.
struct LockOwner {
  std::string host;
  std::int64_t pid = 0;
  std::string machine;       ///< boot id and process namespace: where these are equal, pids mean the same
  std::int64_t ticks = 0;    ///< when the process started, by its machine's clock: pids are reused
  std::string job;           ///< SLURM_JOB_ID, or ""
  std::int64_t restart = 0;  ///< SLURM_RESTART_COUNT
  std::int64_t started = 0;  ///< seconds since 1970
  std::string nonce;         ///< random

  static LockOwner self();
  /// The text of run_dir/lock.
  std::string to_text() const;
  /// Empty text (a released lock): nothing. Text that this program did not write: an owner without known fields.
  static std::optional<LockOwner> from_text(const std::string& text);
  /// Whether the owner's process is known to have ended. False if `asking` cannot see it (another node or container).
  bool is_dead(const LockOwner& asking) const;
  /// "process 4711 on node3, job 99, started 2026-11-22 06:43:59"
  std::string describe() const;
  bool operator==(const LockOwner&) const = default;
};

struct LockOptions {
  LockOwner self = LockOwner::self();
  std::chrono::milliseconds beat = std::chrono::seconds(5);
  /// If nobody has touched the file for this long, no owner is alive.
  std::chrono::milliseconds stale = std::chrono::seconds(60);
  /// How long another node may take to see a write, if flock may not reach it.
  std::chrono::milliseconds settle = std::chrono::seconds(2);
  /// False: behave as on a file system without flock.
  bool use_flock = true;
};

class RunLock {
 public:
  using Options = LockOptions;

  /// Takes run_dir/lock. Error(input) if a living run has it, naming the owner and the age of its last sign of life.
  /// Takes over the lock of a dead run, with a warning. If only a heartbeat can tell, waits until it beats, at most
  /// `stale`. Error(file) if the file cannot be made.
  explicit RunLock(const std::string& run_dir, const Options& options = {});
  /// Releases the folder, if it is still ours.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Call between updates. Error(input) if another run has taken the folder: this run must write nothing more there.
  /// Returns true if the file, and perhaps the folder, is gone: then call retake(). Reads the file if neither this nor
  /// the thread has done so for a second.
  bool vanished() const;
  /// Call after the folder was made again. Error(input) if another run was faster, Error(file).
  void retake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::run
