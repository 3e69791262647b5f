// SPDX-License-Identifier: Apache-2.0
// What a host build has in place of src/device/cuda.
#if !defined(SEER_CUDA)
#include <fmt/format.h>

#include <cstdlib>

#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/pinned.hpp"

namespace seer::device {

int bind_device(Sharing) {
  return -1;
}
int bound_device() {
  return -1;
}
std::string device_id() {
  return "";
}
std::string describe_device() {
  return "";
}

DeviceQueue::DeviceQueue(Priority) {
  throw Error(ExitCode::device, "a device queue is asked for in a host build", "configure with -DSEER_CUDA=ON");
}
DeviceQueue::~DeviceQueue() = default;
void DeviceQueue::follow(const Queue&) {}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = std::calloc(bytes, 1);
  if (data_ == nullptr) {
    throw Error(ExitCode::device, fmt::format("out of host memory: {} bytes wanted in one block", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
}
PinnedBuffer::~PinnedBuffer() {
  std::free(data_);
}

}  // namespace seer::device
#endif
