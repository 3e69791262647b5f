// SPDX-License-Identifier: Apache-2.0
#include "seer/device/recorder.hpp"

#include <iterator>

#include "seer/base/error.hpp"

namespace seer::device {
namespace {

Recorder*& of_thread() {
  thread_local Recorder* recorder = nullptr;
  return recorder;
}

}  // namespace

Recorder::Recorder(const Queue& queue, Convolutions convolutions)
    : queue_(queue), convolutions_(convolutions), device_clock_(queue) {
  ensure(of_thread() == nullptr, "a thread has one recorder");
  of_thread() = this;
  open_ = row_of("");
  mark(open_);
}

Recorder::~Recorder() {
  of_thread() = nullptr;
}

Recorder* Recorder::current() {
  return of_thread();
}

void Recorder::enter(int section) {
  auto* const recorder = current();
  if (recorder == nullptr || !recorder->by_shape()) return;
  recorder->section_ = section;
  recorder->mark(recorder->row_of(""));
}

int Recorder::row_of(std::string_view label) {
  const auto [place, fresh] =
      places_.try_emplace(std::to_string(section_) + " " + std::string(label), std::ssize(rows_));
  if (fresh) rows_.push_back({.label = std::string(label), .section = section_});
  return place->second;
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
  const int place = recorder->row_of(label);
  auto& row = recorder->rows_[static_cast<std::size_t>(place)];
  ++row.calls;
  row.bytes += bytes;
  row.flops += flops;
  recorder->mark(place);
}

}  // namespace seer::device
