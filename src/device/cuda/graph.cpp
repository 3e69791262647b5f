// SPDX-License-Identifier: Apache-2.0
#include "seer/device/graph.hpp"

#include <cstdlib>
#include <string>
#include <string_view>

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/region.hpp"

namespace seer::device {
namespace {

constexpr const char* kNotRecordable =
    "this is an error in the program: work inside a recording waits, allocates or uses another stream; set "
    "SEER_GRAPHS=0 to run without recordings, and report it";

/// For calls that fail because of the recorded work, not because of the device.
void check_recording(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  if (status < cudaErrorStreamCaptureUnsupported || status > cudaErrorStreamCaptureWrongThread) check(status, call);
  cudaGetLastError();
  throw Error(ExitCode::device, std::string(call) + ": " + cudaGetErrorString(status), kNotRecordable);
}

}  // namespace

Graph::~Graph() {
  // A replay that still runs keeps what it needs.
  if (executable_ != nullptr && cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_)) != cudaSuccess) {
    cudaGetLastError();
  }
}

void Graph::replay(Queue& queue) const {
  ensure(executable_ != nullptr && queue.space == Space::device, "an empty recording was replayed");
  make_current();
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), stream_of(queue)), "cudaGraphLaunch");
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
  check_recording(cudaStreamEndCapture(stream_of(queue_), &graph), "cudaStreamEndCapture");
  Graph out;
  cudaGraphExec_t executable = nullptr;
  std::size_t steps = 0;
  cudaError_t status = cudaGraphGetNodes(graph, nullptr, &steps);
  if (status == cudaSuccess) status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  out.executable_ = executable;
  out.steps_ = steps;
  check(cudaGraphUpload(executable, stream_of(queue_)), "cudaGraphUpload");
  return out;
}

bool records(const Queue& queue) {
  static const bool wanted = [] {
    const char* value = std::getenv("SEER_GRAPHS");
    return value == nullptr || std::string_view(value) != "0";
  }();
  return wanted && queue.space == Space::device && !Region::told();
}

}  // namespace seer::device
