// SPDX-License-Identifier: Apache-2.0
// A stand-in for a device, for tests of host builds. It computes on the host, in separate memory: Space::device is then
// host memory that only work on a device queue may touch. Kernels, library calls, copies and collectives open it for
// themselves. A program that touches it by mistake ends at once, as it would on a machine with a device.
//
// Copies to pinned memory arrive when the program waits for the queue or makes a copy of another kind, so code that
// forgets to wait reads old numbers. Everything else is done when the call returns.
#pragma once

#if !defined(SEER_CUDA)

#include <atomic>
#include <string_view>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// While one exists, this process has such a device. If SEER_STAND_IN_DEVICE is 1, bind_device() creates one
/// for the life of the process.
class StandIn {
 public:
  StandIn() { ++alive; }
  ~StandIn() { --alive; }
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;
  static inline std::atomic<int> alive{0};
};
inline bool has_stand_in() {
  return StandIn::alive > 0;
}

/// While it exists, queued work may touch the stand-in's memory. Does nothing for a host queue. The whole process gets
/// access, so mistakes of other threads stay hidden meanwhile.
class StandInAccess {
 public:
  explicit StandInAccess(Space space) : open_(space == Space::device) {
    if (open_) open();
  }
  explicit StandInAccess(const Queue& queue) : StandInAccess(queue.space) {}
  ~StandInAccess() {
    if (open_) close();
  }
  StandInAccess(const StandInAccess&) = delete;
  StandInAccess& operator=(const StandInAccess&) = delete;

 private:
  static void open();
  static void close() noexcept;
  bool open_;
};

/// True if the address is in the stand-in's memory. False if there is no stand-in.
bool on_stand_in(const void* data);
/// Throws Error(internal) if queued work gets an address that its queue cannot reach. Accepts null.
void expect_reached(const Queue& queue, const void* data, std::string_view what);

}  // namespace seer::device

#endif
