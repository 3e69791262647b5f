// SPDX-License-Identifier: Apache-2.0
// Queues, and recordings of their work.
#include "seer/device/queue.hpp"

#include <cstdlib>
#include <string>
#include <string_view>

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/graph.hpp"
#include "seer/device/recorder.hpp"
#include "seer/device/region.hpp"

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

void Graph::replay(Queue& queue) const {
  ensure(executable_ != nullptr && queue.space == Space::device, "an empty recording was replayed");
  make_current();
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_.get()), stream_of(queue)), "cudaGraphLaunch");
}

Recording::Recording(Queue& queue) : queue_(queue) {
  ensure(queue.space == Space::device, "work is recorded on device queues only");
  make_current();
  // Other threads may allocate meanwhile; this one may not.
  check(cudaStreamBeginCapture(stream_of(queue), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  open_ = true;
}

Recording::~Recording() {
  if (!open_) return;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_of(queue_), &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

Graph Recording::end() {
  ensure(open_, "a recording was ended twice");
  make_current();
  cudaGraph_t graph = nullptr;
  open_ = false;
  const cudaError_t ended = cudaStreamEndCapture(stream_of(queue_), &graph);
  // Errors of the recorded work, not of the device.
  if (ended >= cudaErrorStreamCaptureUnsupported && ended <= cudaErrorStreamCaptureWrongThread) {
    cudaGetLastError();
    throw Error(
        ExitCode::device, std::string("cudaStreamEndCapture: ") + cudaGetErrorString(ended),
        "this is a defect of seer: recorded work waits, allocates memory or uses another stream; set SEER_GRAPHS=0 "
        "to run without recordings, and report the defect");
  }
  check(ended, "cudaStreamEndCapture");
  cudaGraphExec_t executable = nullptr;
  std::size_t steps = 0;
  cudaError_t status = cudaGraphGetNodes(graph, nullptr, &steps);
  if (status == cudaSuccess) status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  Graph out;
  out.executable_.reset(executable, [](cudaGraphExec_t made) {
    // A replay that still runs keeps what it needs.
    if (cudaGraphExecDestroy(made) != cudaSuccess) cudaGetLastError();
  });
  out.steps_ = steps;
  check(cudaGraphUpload(executable, stream_of(queue_)), "cudaGraphUpload");
  return out;
}

bool records(const Queue& queue) {
  static const bool wanted = [] {
    const char* value = std::getenv("SEER_GRAPHS");
    return value == nullptr || std::string_view(value) != "0";
  }();
  return wanted && queue.space == Space::device && !Region::told() && Recorder::current() == nullptr;
}

}  // namespace seer::device
