// SPDX-License-Identifier: Apache-2.0
#include "event_order.hpp"

#include <utility>

namespace seer::comm {

EventOrder::EventOrder(std::unique_ptr<EventSource> source, bool beside) : source_(std::move(source)), beside_(beside) {
  ready_ = source_->make();
}

EventOrder::~EventOrder() {
  // Wait, because memory that jobs use is freed next. After an error, the queue may never become empty.
  if (!error_ && std::uncaught_exceptions() == 0) {
    try {
      source_->finish();
    } catch (...) {  // the next use of the device reports it
    }
  }
  for (auto* spans : {&jobs_, &stalls_})
    for (const auto& span : *spans) give_back(span);
  for (const auto event : free_) source_->drop(event);
  source_->drop(ready_);
}

EventOrder::Event EventOrder::take() {
  if (free_.empty()) return source_->make();
  const auto event = free_.back();
  free_.pop_back();
  return event;
}

void EventOrder::give_back(Span span) {
  for (const auto event : {span.from, span.to})
    if (event != nullptr) free_.push_back(event);
}

/// Collects the times of spans that the device has passed, and frees their events for reuse.
void EventOrder::retire() {
  const auto pass = [&](Fifo<Span>& spans, const auto& took) {
    while (!spans.empty() && (spans.front().to == nullptr || source_->reached(spans.front().to))) {
      const auto span = spans.front();
      spans.pop_front();
      took(span.to == nullptr ? 0.0 : source_->ms(span.from, span.to));
      give_back(span);
    }
  };
  pass(jobs_, [this](double ms) {
    busy_ms_ += ms;
    if (!beside_) stalled_ms_ += ms;
    ++done_;
  });
  pass(stalls_, [this](double ms) { stalled_ms_ += ms; });
}

EventOrder::Ticket EventOrder::post(const std::function<void()>& job) {
  retire();
  Span span;
  if (!error_) {  // after an error, later jobs do not run
    span = {take(), take()};
    if (beside_) {
      source_->record(ready_, Lane::compute);
      source_->hold(Lane::aside, ready_);
    }
    source_->record(span.from, Lane::aside);
    try {
      job();
      source_->record(span.to, Lane::aside);
    } catch (...) {
      error_ = std::current_exception();
      give_back(std::exchange(span, {}));
    }
  }
  jobs_.push_back(span);
  return ++given_;
}

void EventOrder::wait(Ticket ticket) {
  retire();
  if (error_) std::rethrow_exception(error_);
  if (!beside_ || ticket <= done_ || ticket <= held_) return;
  const Span stall{take(), take()};
  source_->record(stall.from, Lane::compute);
  source_->hold(Lane::compute, jobs_[static_cast<std::size_t>(ticket - done_ - 1)].to);
  source_->record(stall.to, Lane::compute);
  stalls_.push_back(stall);
  held_ = ticket;
}

bool EventOrder::done(Ticket ticket) {
  retire();
  return ticket <= done_;
}

double EventOrder::take_busy_ms() {
  retire();
  return std::exchange(busy_ms_, 0.0);
}

double EventOrder::take_stalled_ms() {
  retire();
  return std::exchange(stalled_ms_, 0.0);
}

}  // namespace seer::comm
