// SPDX-License-Identifier: Apache-2.0
// Replaces src/device/cuda in a host build.
#if !defined(SEER_CUDA)
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/pinned.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::device {

int bind_device() {
  return stand_in_by_environment() ? 0 : -1;
}
int bound_device() {
  return has_stand_in() ? 0 : -1;
}
std::string device_id() {
  return has_stand_in() ? fmt::format("stand-in {}", getpid()) : "";
}
std::string describe_device() {
  return has_stand_in() ? "a stand-in for a device, for tests: computes on the host, in memory apart" : "";
}

void Queue::wait() const {
  if (space == Space::device) stand_in_wait(*this);
}

DeviceQueue::DeviceQueue(Priority) {
  if (!has_stand_in()) {
    throw Error(ExitCode::device, "a device queue is asked for in a host build", "configure with -DSEER_CUDA=ON");
  }
  queue_ = {.space = Space::device, .stream = stand_in_stream(), .ledger = nullptr};
}
DeviceQueue::~DeviceQueue() {
  stand_in_drop(queue_.stream);
}
void DeviceQueue::follow(const Queue&) {}  // the other queue's work is done already

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = std::calloc(bytes, 1);
  if (data_ == nullptr) {
    throw Error(ExitCode::device, fmt::format("out of host memory: {} bytes wanted in one block", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
  stand_in_pin(data_, bytes);
}
PinnedBuffer::~PinnedBuffer() {
  stand_in_unpin(data_);
  std::free(data_);
}

}  // namespace seer::device
#endif
