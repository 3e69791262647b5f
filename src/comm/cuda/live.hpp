// SPDX-License-Identifier: Apache-2.0
// An NCCL communicator with what is under way in it, shared between the thread that uses it and the one that watches.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <source_location>
#include <string>
#include <vector>

#include "fifo.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/ring.hpp"

namespace seer::comm {

/// Error(device) with NCCL's own words.
Error nccl_error(ncclResult_t status, const char* call, std::source_location where = std::source_location::current());
inline void check(ncclResult_t status, const char* call, std::source_location where = std::source_location::current()) {
  if (status != ncclSuccess) throw nccl_error(status, call, where);
}

class Live {
 public:
  Live() = default;
  Live(const Live&) = delete;
  Live& operator=(const Live&) = delete;
  ~Live();

  /// All ranks of `size`, with rank 0's id.
  void start(int size, int rank, const ncclUniqueId& id, Trace* trace);
  /// Null: aborted, or never started.
  ncclComm_t comm() const { return comm_; }

  /// `mark` was just put into `stream`, and is left when the stream has come so far.
  void under_way(const OpenMark& mark, cudaStream_t stream);
  /// Tells the watchdog what has ended, and returns what NCCL says of the rest.
  ncclResult_t look();
  /// Waits for all that is under way. Throws what NCCL reports meanwhile, after aborting.
  void settle();
  /// Takes it from the device, whatever waits there.
  void abort() noexcept;
  /// When everything is done.
  void end() noexcept;

 private:
  struct Flight {
    OpenMark mark;
    cudaEvent_t landed;
  };
  void retire();
  void land_all() noexcept;

  std::mutex mutex_;  ///< of all below; never held in a call that may wait
  ncclComm_t comm_ = nullptr;
  Fifo<Flight> flights_;  ///< oldest first
  std::vector<cudaEvent_t> free_;
};

/// While it lives, a thread looks at `live` a few times a second; where NCCL reports an error, it ends all ranks.
class Watched {
 public:
  explicit Watched(std::shared_ptr<Live> live);
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  std::shared_ptr<Live> live_;
};

}  // namespace seer::comm
