// SPDX-License-Identifier: Apache-2.0
// An NCCL communicator with its running collectives, shared by the thread that uses it and the thread that watches it;
// and how a BlockCommunicator holds one.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "fifo.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/user_buffer.hpp"

namespace seer::comm {

/// Returns Error(device) with NCCL's own message.
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

  /// Called by all `size` ranks, with rank 0's id.
  void start(int size, int rank, const ncclUniqueId& id, Trace* trace);
  /// Null if aborted or never started.
  ncclComm_t comm() const { return comm_; }

  /// Registers a collective that was just put into `stream`. Its mark is closed when the stream has finished it.
  void under_way(const OpenMark& mark, cudaStream_t stream);
  /// Tells the watchdog which collectives have ended, and returns NCCL's state of the rest.
  ncclResult_t look();
  /// Waits for all running collectives. If NCCL reports an error meanwhile, aborts and throws it.
  void settle();
  /// Aborts the communicator, whatever waits on the device.
  void abort() noexcept;
  /// Destroys the communicator. Call when everything is done.
  void end() noexcept;

 private:
  struct Flight {
    OpenMark mark;
    cudaEvent_t landed;
  };
  void retire();
  ncclComm_t take() noexcept;  ///< null afterwards; collectives count as left

  std::mutex mutex_;  ///< guards all below; never held in a call that may wait
  ncclComm_t comm_ = nullptr;
  Fifo<Flight> flights_;  ///< oldest first
  std::vector<cudaEvent_t> free_;
};

/// While it exists, a thread checks `live` every 20 ms and ends all ranks if NCCL reports an error.
class Watched {
 public:
  explicit Watched(std::shared_ptr<Live> live);
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  std::shared_ptr<Live> live_;
};

struct BlockCommunicator::Impl {
  Impl(const Communicator& group, Convert convert_in, bool even_alone);
  ~Impl();

  /// Counts the call, and unless that is all, runs `call` between the watchdog's marks.
  template <class Call>
  void enter(Kind kind, std::size_t bytes, const device::Queue& queue, const Call& call);
  template <class T>
  void all_reduce(const device::Queue& queue, std::span<T> values, ncclDataType_t type, Op op);
  /// Returns at least `bytes` of registered memory; the same place until more is wanted. Null on a planned machine.
  void* staging(std::size_t bytes);
  /// Copies rows in the queue's order, rounded if the types differ.
  void move(device::Queue& queue, const DeviceRows& from, const DeviceRows& to) const;

  Communicator group;  ///< for rank, size and counters
  bool alone;          ///< one rank, which sends nothing
  Convert convert;
  std::shared_ptr<Live> live;  ///< null: planned, or one rank
  std::optional<Watched> watched;
  UserBuffer stage;
  int exceptions = std::uncaught_exceptions();
};

}  // namespace seer::comm
