// SPDX-License-Identifier: Apache-2.0
// Collectives beside the computation: jobs that a thread of its own runs one after the other, in the order in which
// they were posted. All ranks post the same jobs in the same order, and the communicators used in them are used nowhere
// else.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "seer/device/ledger.hpp"

namespace seer::comm {

class Stream {
 public:
  /// Jobs run when they are posted, in the caller's thread, where `threaded` is false or the MPI lacks
  /// MPI_THREAD_MULTIPLE.
  /// With a ledger (planned), threaded jobs are told as beside the main line.
  explicit Stream(bool threaded, device::Ledger* ledger = nullptr);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  using Ticket = std::uint64_t;  ///< 0: nothing to wait for
  Ticket post(std::function<void()> job);
  /// Until the job and all before it are done. Throws what a job threw.
  void wait(Ticket ticket);
  /// Whether wait() would return at once.
  bool done(Ticket ticket) const;
  void wait_all();
  /// Time that jobs took since the last call, ms; how much of it the caller spent in wait() or post() is the caller's
  /// to measure.
  double take_busy_ms();
  bool threaded() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
