// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include "event_order.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"

namespace seer::comm {
namespace {

using device::check;
using device::stream_of;

/// The aside queue has high priority: a collective's few thread blocks come before the next kernel's many, because
/// other ranks wait for them.
class DeviceEvents : public EventSource {
 public:
  DeviceEvents(const device::Queue& compute, bool beside) : compute_(compute), aside_(compute) {
    if (!beside) return;
    own_.emplace(device::DeviceQueue::Priority::high);
    aside_ = own_->queue();
  }
  Event make() override {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cudaEventCreate");  // with timing
    return event;
  }
  void drop(Event event) noexcept override { cudaEventDestroy(of(event)); }
  void record(Event event, Lane lane) override { check(cudaEventRecord(of(event), stream(lane)), "cudaEventRecord"); }
  void hold(Lane lane, Event event) override {
    check(cudaStreamWaitEvent(stream(lane), of(event), 0), "cudaStreamWaitEvent");
  }
  bool reached(Event event) override {
    const auto status = cudaEventQuery(of(event));
    if (status == cudaErrorNotReady) {
      cudaGetLastError();  // otherwise the next check for errors would find this one
      return false;
    }
    check(status, "cudaEventQuery");
    return true;
  }
  double ms(Event from, Event to) override {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, of(from), of(to)), "cudaEventElapsedTime");
    return static_cast<double>(ms);
  }
  device::Queue aside() const override { return aside_; }
  void finish() override { aside_.wait(); }

 private:
  static cudaEvent_t of(Event event) { return static_cast<cudaEvent_t>(event); }
  cudaStream_t stream(Lane lane) const { return stream_of(lane == Lane::compute ? compute_ : aside_); }
  device::Queue compute_, aside_;
  std::optional<device::DeviceQueue> own_;
};

}  // namespace

std::unique_ptr<EventSource> device_events(const device::Queue& compute, bool beside) {
  return std::make_unique<DeviceEvents>(compute, beside);
}

}  // namespace seer::comm
