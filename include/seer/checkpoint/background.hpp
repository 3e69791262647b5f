// SPDX-License-Identifier: Apache-2.0
// Checkpoints written beside the training: the values of one update are copied, and a thread of every rank writes the
// copy, on communicators of its own, while the ranks go on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/stream.hpp"
#include "seer/device/memory.hpp"

namespace seer::checkpoint {

/// A rank's own slabs as they were at one moment.
class Snapshot {
 public:
  /// What the copy takes, each slab on a cache line of its own.
  static std::int64_t bytes(const std::vector<Slab>& slabs);
  /// Copies the values. Memory is asked for with the first call, and again only where there is more to copy.
  void take(const std::vector<Slab>& slabs);
  /// Those of the last take(), with their data here.
  const std::vector<Slab>& slabs() const { return slabs_; }
  std::int64_t bytes_held() const { return static_cast<std::int64_t>(buffer_.bytes()); }

 private:
  device::Buffer buffer_;
  std::vector<Slab> slabs_;
};

/// One collective job at a time in a thread beside the training's.
class Background {
 public:
  /// What a job may use is this communicator alone; collective.
  using Job = std::function<void(const comm::Communicator&)>;
  /// Collective. Without `threaded`, or where the MPI does not let several threads call it, jobs run in start().
  Background(const comm::Communicator& comm, bool threaded);
  /// Waits for a job that is under way: its thread works for the other ranks too.
  ~Background() = default;

  bool threaded() const { return stream_.threaded(); }
  /// Started, and not yet waited for.
  bool busy() const { return ticket_ != 0; }
  /// busy(), and wait() would return at once. Ranks see this at different times: nothing that all must do alike may
  /// hang on it.
  bool finished() const { return ticket_ != 0 && stream_.done(ticket_); }
  /// All ranks start the same job, when the one before has been waited for. It may throw agreed errors; any other ends
  /// all ranks, which would wait for this one for ever.
  void start(Job job);

  struct Outcome {
    std::optional<Error> error;  ///< agreed
    double seconds = 0;          ///< that the job took on this rank
  };
  /// Of the last job, once it is finished() or waited for.
  const Outcome& outcome() const { return outcome_; }
  /// Until the job is done.
  Outcome wait();
  /// What the jobs waited for have sent.
  const std::vector<comm::Traffic>& traffic() const { return traffic_; }

 private:
  comm::Communicator comm_;
  Outcome outcome_;
  std::vector<comm::Traffic> traffic_;
  comm::Stream::Ticket ticket_ = 0;
  comm::Stream stream_;  // last: its thread uses the others
};

}  // namespace seer::checkpoint
