// SPDX-License-Identifier: Apache-2.0
#include "seer/device/queue_clock.hpp"

#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#if defined(SEER_CUDA)
#include "seer/device/cuda.hpp"
#endif

namespace seer::device {
namespace {

#if defined(SEER_CUDA)
void* make_event() {
  make_current();
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  return event;
}
void drop_event(void* event) {
  cudaEventDestroy(static_cast<cudaEvent_t>(event));
}
void record(void* event, const Queue& queue) {
  make_current();
  check(cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(queue)), "cudaEventRecord");
}
double ms_between(void* from, void* to) {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from), static_cast<cudaEvent_t>(to)),
        "cudaEventElapsedTime");
  return static_cast<double>(ms);
}
#else
// The stand-in's work is done when it is submitted, so an event is just a time.
const Clock& since_start() {
  static const Clock clock;
  return clock;
}
void* make_event() {
  return new double(0);
}
void drop_event(void* event) {
  delete static_cast<double*>(event);
}
void record(void* event, const Queue&) {
  *static_cast<double*>(event) = since_start().ms();
}
double ms_between(void* from, void* to) {
  return *static_cast<double*>(to) - *static_cast<double*>(from);
}
#endif

}  // namespace

QueueClock::~QueueClock() {
  for (void* event : events_) drop_event(event);
}

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
