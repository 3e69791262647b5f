// SPDX-License-Identifier: Apache-2.0
// One run at a time in a run folder. run_dir/lock holds who uses it (docs/formats.md) under a lock of the file system
// (flock), which ends with the process however it ends. Where that lock does not reach other nodes, a heartbeat tells
// the living from the dead: a thread touches the file every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace seer::run {

/// Who uses a run folder: one process, told from any other, now or later, here or elsewhere.
struct LockOwner {
  std::string host;
  std::int64_t pid = 0;
  std::string machine;       ///< boot id and process namespace: equal where process numbers mean the same
  std::int64_t ticks = 0;    ///< when the process started, by its machine's clock: numbers come again
  std::string job;           ///< SLURM_JOB_ID, or ""
  std::int64_t restart = 0;  ///< SLURM_RESTART_COUNT
  std::int64_t started = 0;  ///< seconds since 1970
  std::string nonce;         ///< random

  static LockOwner self();
  /// "process 4711 on node3, job 99, started 2026-11-22 06:43:59"
  std::string describe() const;
  bool operator==(const LockOwner&) const = default;
};

class RunLock {
 public:
  struct Options {
    LockOwner self = LockOwner::self();
    std::chrono::milliseconds beat = std::chrono::seconds(5);
    /// A file that nobody has touched for so long has no living owner.
    std::chrono::milliseconds stale = std::chrono::seconds(60);
    /// How long another node may take to see what was written, where flock may not reach it.
    std::chrono::milliseconds settle = std::chrono::seconds(2);
    /// False: as on a file system that has no flock.
    bool use_flock = true;
  };

  /// Takes run_dir/lock. Error(input), naming the owner and the age of its last sign of life, where a living run has
  /// it. That of a dead one is taken over with a warning. Where only a heartbeat can tell, waits until it has beaten,
  /// or for as long as `stale`. Error(file) where the file cannot be made.
  explicit RunLock(const std::string& run_dir);
  RunLock(const std::string& run_dir, const Options& options);
  /// Gives the folder back, if it is still ours.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Between updates. Error(input) where another run has taken the folder: this one must write nothing more there.
  /// True: the file is gone, and the folder perhaps; then retake(). Looks at the file where neither this nor the thread
  /// has done so for a second.
  bool vanished() const;
  /// After the folder was made again. Error(input) where another run was faster, Error(file).
  void retake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::run
