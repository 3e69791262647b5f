// SPDX-License-Identifier: Apache-2.0
// A stand-in for a device, for tests of host builds: it computes on the host, in memory apart. Space::device then is
// host memory that nobody may touch but what was handed to a device queue: kernels, library calls, copies and
// collectives open it for themselves. A program that touches it by mistake ends at once, as good as it would on a
// machine with a device.
//
// Copies to pinned memory arrive when the queue is waited for, and not before: who forgets to wait reads old numbers.
// Everything else is done when the call returns.
#pragma once

#if !defined(SEER_CUDA)

#include <cstddef>
#include <string_view>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// While one lives, this process has such a device. Where SEER_STAND_IN_DEVICE is 1, from bind_device() on.
class StandIn {
 public:
  StandIn();
  ~StandIn();
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;
};
bool has_stand_in();
/// Makes one for good where the environment asks for it. Error(input) for anything but 0, 1 and nothing.
bool stand_in_by_environment();

/// While it lives, the stand-in's memory may be touched: by queued work. Nothing on a host queue. The rights are the
/// whole process's: a thread that does queued work hides mistakes of the others for so long.
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

/// Whether an address is of its memory. False where there is none.
bool on_stand_in(const void* data);
/// Error(internal) where queued work is given an address that its queue cannot reach; null can be anywhere.
void expect_reached(const Queue& queue, const void* data, std::string_view what);

// What the host build's Buffer, Pool, PinnedBuffer, DeviceQueue and copy() are made of where there is one.
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
