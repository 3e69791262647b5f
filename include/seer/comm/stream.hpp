// SPDX-License-Identifier: Apache-2.0
// Collectives beside the computation. A second thread runs jobs one after the other, in the order in which they were
// posted. All ranks post the same jobs in the same order. A communicator that a job uses is used nowhere else.
//
// On a device there is a second queue instead of a second thread. A job runs in the caller's thread when it is posted,
// and puts its collectives into queue(). The device starts them after the work that the compute queue held at that
// time. wait() makes the compute queue wait, not the caller. So one thread submits all work, in the same order on all
// ranks, as NCCL requires when several communicators have work at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "seer/device/ledger.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

class Stream {
 public:
  /// If `threaded` is false or MPI lacks MPI_THREAD_MULTIPLE, jobs run in the caller's thread when they are posted.
  /// With a ledger (planned), threaded jobs are recorded as running beside the main line. With a device queue as
  /// `compute`, jobs use a second queue if `threaded`, else `compute` itself.
  explicit Stream(bool threaded, device::Ledger* ledger = nullptr, const device::Queue& compute = {});
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  using Ticket = std::uint64_t;  ///< 0: nothing to wait for
  Ticket post(std::function<void()> job);
  /// Waits for the job and all jobs posted before it. Host: blocks the caller. Device: does not block; work submitted
  /// to the compute queue after this call waits. Rethrows what a job threw.
  void wait(Ticket ticket);
  /// Whether the job has finished.
  bool done(Ticket ticket) const;
  void wait_all();
  /// Time in ms that jobs ran since the last call. The caller measures how long it waited for them.
  double take_busy_ms();
  /// Device: the part of that time during which the compute queue waited. Host: 0.
  double take_stalled_ms();
  bool threaded() const;
  /// Where jobs put device work; else a host or planned queue.
  device::Queue queue() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
