// SPDX-License-Identifier: Apache-2.0
#include "seer/device/device_queue.hpp"

#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#if defined(SEER_CUDA)
#include "seer/device/cuda.hpp"
#endif

namespace seer::device {
namespace {

using Event = std::unique_ptr<void, void (*)(void*)>;

#if defined(SEER_CUDA)
Event make_event() {
  make_current();
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  return {event, [](void* made) { cudaEventDestroy(static_cast<cudaEvent_t>(made)); }};
}
void record(const Event& event, const Queue& queue) {
  make_current();
  check(cudaEventRecord(static_cast<cudaEvent_t>(event.get()), stream_of(queue)), "cudaEventRecord");
}
double ms_between(const Event& from, const Event& to) {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from.get()), static_cast<cudaEvent_t>(to.get())),
        "cudaEventElapsedTime");
  return static_cast<double>(ms);
}
#else
// The stand-in's work is done when it is submitted, so an event is just a time.
Event make_event() {
  return {new double(0), [](void* made) { delete static_cast<double*>(made); }};
}
void record(const Event& event, const Queue&) {
  static const Clock since_start;
  *static_cast<double*>(event.get()) = since_start.ms();
}
double ms_between(const Event& from, const Event& to) {
  return *static_cast<double*>(to.get()) - *static_cast<double*>(from.get());
}
#endif

}  // namespace

void QueueClock::mark(int label) {
  ensure(queue_.space == Space::device, "marks go into device queues");
  if (labels_.size() == kMost) return;
  if (labels_.size() == events_.size()) events_.push_back(make_event());
  record(events_[labels_.size()], queue_);
  labels_.push_back(label);
}

void QueueClock::read(const std::function<void(int label, double ms)>& told) {
  if (labels_.empty()) return;
  queue_.wait();
  for (std::size_t i = 0; i + 1 < labels_.size(); ++i) told(labels_[i], ms_between(events_[i], events_[i + 1]));
  std::swap(events_.front(), events_[labels_.size() - 1]);
  labels_ = {labels_.back()};
}

}  // namespace seer::device
