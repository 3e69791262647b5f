// SPDX-License-Identifier: Apache-2.0
// A stand-in for a device, for tests of host builds. It computes on the host, in separate memory: Space::device is then
// host memory that only work on a device queue may touch. Kernels, library calls, copies and collectives open it for
// themselves. A program that touches it by mistake ends at once, as it would on a machine with a device.
//
// Copies to pinned memory arrive when the program waits for the queue or makes a copy of another kind, so code that
// forgets to wait reads old numbers. Everything else is done when the call returns.
#pragma once

#if !defined(SEER_CUDA)

#include <cstddef>
#include <string_view>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// While one exists, this process has such a device. If SEER_STAND_IN_DEVICE is 1, bind_device() creates one.
class StandIn {
 public:
  StandIn();
  ~StandIn();
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;
};
bool has_stand_in();
/// Creates one for the life of the process, and returns true, if SEER_STAND_IN_DEVICE is 1. Throws Error(input) if it
/// is set to anything but 0, 1 or "".
bool stand_in_by_environment();

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

// Used by the host build's Buffer, Pool, PinnedBuffer, DeviceQueue and copy() if there is a stand-in.
void* stand_in_allocate(std::size_t bytes);
void stand_in_free(void* data) noexcept;
void* stand_in_stream();
void stand_in_drop(void* stream) noexcept;
void stand_in_copy(const Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes);
void stand_in_wait(const Queue& queue);
void stand_in_pin(const void* data, std::size_t bytes);
void stand_in_unpin(const void* data) noexcept;

}  // namespace seer::device

#endif
