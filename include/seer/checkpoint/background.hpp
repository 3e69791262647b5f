// SPDX-License-Identifier: Apache-2.0
// Writes checkpoints while the training continues. Each rank copies its values of one update; a second thread on each
// rank writes the copy, using its own communicators.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/stream.hpp"
#include "seer/device/memory.hpp"

namespace seer::checkpoint {

/// A copy of one rank's slabs at one moment.
class Snapshot {
 public:
  /// Bytes that a copy takes; each slab starts on a new cache line.
  static std::int64_t bytes(const std::vector<Slab>& slabs);
  /// Copies the values. Allocates memory on the first call, and again only if there is more to copy.
  void take(const std::vector<Slab>& slabs);
  /// The slabs of the last take(); their data pointers point into the copy.
  const std::vector<Slab>& slabs() const { return slabs_; }
  std::int64_t bytes_held() const { return static_cast<std::int64_t>(buffer_.bytes()); }

 private:
  device::Buffer buffer_;
  std::vector<Slab> slabs_;
};

/// Runs one collective job at a time in a second thread beside the training. The destructor waits for a running job,
/// since the other ranks need this rank's part of it.
class Background {
 public:
  /// A collective job. It may use only the communicator that it is given.
  using Job = std::function<void(const comm::Communicator&)>;
  /// Collective. If `threaded` is false, or if MPI lacks MPI_THREAD_MULTIPLE, jobs run in start().
  Background(const comm::Communicator& comm, bool threaded)
      : comm_(comm.duplicate().named("checkpoint")), stream_(threaded) {}

  bool threaded() const { return stream_.threaded(); }
  /// True if a job was started and has not been waited for.
  bool busy() const { return ticket_ != 0; }
  /// True if busy() and wait() would return at once. Ranks see this at different times, so no decision that must be
  /// the same on all ranks may depend on it.
  bool finished() const { return ticket_ != 0 && stream_.done(ticket_); }
  /// All ranks must start the same job, after waiting for the previous one. The job may throw agreed errors. Any other
  /// exception ends all ranks, since they would otherwise wait forever for this one.
  void start(Job job);

  struct Outcome {
    std::optional<Error> error;  ///< agreed
    double seconds = 0;          ///< duration of the job on this rank
  };
  /// Outcome of the last job. Valid once the job is finished() or has been waited for.
  const Outcome& outcome() const { return outcome_; }
  /// Waits until the job is done.
  Outcome wait();
  /// What was sent by all jobs that have been waited for.
  const std::vector<comm::Traffic>& traffic() const { return traffic_; }

 private:
  comm::Communicator comm_;
  Outcome outcome_;
  std::vector<comm::Traffic> traffic_;
  comm::Stream::Ticket ticket_ = 0;
  comm::Stream stream_;  // last: its thread uses the members above
};

}  // namespace seer::checkpoint
