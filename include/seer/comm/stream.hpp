// SPDX-License-Identifier: Apache-2.0
// Collectives beside the computation: jobs that a thread of its own runs one after the other, in the order in which
// they were posted. All ranks post the same jobs in the same order, and the communicators used in them are used nowhere
// else.
//
// On a device the second thread is a second queue. A job runs when it is posted, in the caller's thread, and puts its
// collectives into queue(); the device begins them when what the compute queue held by then is done. wait() lets the
// compute queue wait, not the caller. So one thread gives the device all its work, in the same order on all ranks,
// which NCCL needs where several communicators have work at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "seer/device/ledger.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

class Stream {
 public:
  /// Jobs run when they are posted, in the caller's thread, where `threaded` is false or the MPI lacks
  /// MPI_THREAD_MULTIPLE.
  /// With a ledger (planned), threaded jobs are told as beside the main line. With a device queue as `compute`: beside
  /// it where `threaded`, else in it.
  explicit Stream(bool threaded, device::Ledger* ledger = nullptr, const device::Queue& compute = {});
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  using Ticket = std::uint64_t;  ///< 0: nothing to wait for
  Ticket post(std::function<void()> job);
  /// Until the job and all before it are done; on a device, what is put into the compute queue from now on waits until
  /// then. Throws what a job threw.
  void wait(Ticket ticket);
  /// Whether there is nothing to wait for any more.
  bool done(Ticket ticket) const;
  void wait_all();
  /// Time that jobs took since the last call, ms; how much of it the caller spent in wait() or post() is the caller's
  /// to measure.
  double take_busy_ms();
  /// On a device: the part of it that the compute queue stood still for, as far as that is over. Else 0.
  double take_stalled_ms();
  bool threaded() const;
  /// Where jobs put device work; else a host or planned queue.
  device::Queue queue() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
