// SPDX-License-Identifier: Apache-2.0
#include "seer/device/queue.hpp"

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"

namespace seer::device {

void Queue::wait() const {
  if (space != Space::device) return;
  make_current();
  check(cudaStreamSynchronize(stream_of(*this)), "cudaStreamSynchronize");
}

DeviceQueue::DeviceQueue(Priority priority) {
  make_current();
  int lowest = 0, highest = 0;
  check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
  cudaStream_t stream = nullptr;
  // Not blocking: the default stream, which libraries may use, must not make this one wait.
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == Priority::high ? highest : lowest),
        "cudaStreamCreateWithPriority");
  cudaEvent_t event = nullptr;
  const cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  if (status != cudaSuccess) cudaStreamDestroy(stream);
  check(status, "cudaEventCreateWithFlags");
  queue_ = {.space = Space::device, .stream = stream, .ledger = nullptr};
  event_ = event;
}

DeviceQueue::~DeviceQueue() {
  // Wait, because memory that the work uses may be freed next. Whoever waited for failed work has reported the error.
  cudaStreamSynchronize(stream_of(queue_));
  cudaEventDestroy(static_cast<cudaEvent_t>(event_));
  cudaStreamDestroy(stream_of(queue_));
  cudaGetLastError();
}

void DeviceQueue::follow(const Queue& other) {
  if (other.space != Space::device || other.stream == queue_.stream) return;
  make_current();
  const auto event = static_cast<cudaEvent_t>(event_);
  check(cudaEventRecord(event, stream_of(other)), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream_of(queue_), event, 0), "cudaStreamWaitEvent");
}

}  // namespace seer::device
