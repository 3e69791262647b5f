// SPDX-License-Identifier: Apache-2.0
#include "seer/device/recorder.hpp"

#include "seer/base/error.hpp"

namespace seer::device {
namespace {

Recorder*& of_thread() {
  thread_local Recorder* recorder = nullptr;
  return recorder;
}

}  // namespace

Recorder::Recorder(const Queue& queue, Convolutions convolutions)
    : queue_(queue), convolutions_(convolutions), device_clock_(queue), rows_(1) {
  ensure(of_thread() == nullptr, "a thread has one recorder");
  of_thread() = this;
  mark(0);
}

Recorder::~Recorder() {
  of_thread() = nullptr;
}

Recorder* Recorder::current() {
  return of_thread();
}

void Recorder::mark(int row) {
  if (queue_.space == Space::device) {
    device_clock_.mark(row);
  } else {
    const double now_ms = clock_.ms();
    rows_[static_cast<std::size_t>(open_)].ms += now_ms - marked_ms_;
    marked_ms_ = now_ms;
  }
  open_ = row;
}

void Recorder::read() {
  mark(open_);
  if (queue_.space == Space::device)
    device_clock_.read([this](int row, double ms) { rows_[static_cast<std::size_t>(row)].ms += ms; });
}

void Timed::begin(const Queue& queue, std::string_view label, double bytes, double flops) {
  auto* const recorder = Recorder::current();
  if (!recorder->is_of(queue)) return;
  recorder_ = recorder;
  outer_ = recorder->open_;
  auto& rows = recorder->rows_;
  auto found = recorder->places_.find(label);
  if (found == recorder->places_.end()) {
    found = recorder->places_.emplace(label, static_cast<int>(rows.size())).first;
    rows.push_back({.label = std::string(label)});
  }
  auto& row = rows[static_cast<std::size_t>(found->second)];
  ++row.calls;
  row.bytes += bytes;
  row.flops += flops;
  recorder->mark(found->second);
}

}  // namespace seer::device
