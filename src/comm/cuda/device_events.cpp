// SPDX-License-Identifier: Apache-2.0
#include "event_order.hpp"
#include "seer/device/cuda.hpp"

namespace seer::comm {
namespace {

using device::check;
using device::stream_of;

class DeviceEvents : public EventSource {
 public:
  using EventSource::EventSource;
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

 private:
  static cudaEvent_t of(Event event) { return static_cast<cudaEvent_t>(event); }
  cudaStream_t stream(Lane lane) const { return stream_of(queue(lane)); }
};

}  // namespace

std::unique_ptr<EventSource> device_events(const device::Queue& compute, bool beside) {
  return std::make_unique<DeviceEvents>(compute, beside);
}

}  // namespace seer::comm
