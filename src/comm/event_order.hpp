// SPDX-License-Identifier: Apache-2.0
// comm::Stream on a device: keeps the order between two queues, "compute", where the caller works, and "aside", where
// jobs put their collectives. The host puts work into both and waits for neither; events keep the order and measure
// times. An EventSource provides the events, so tests run without a device.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "fifo.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

/// Two queues and events in them: CUDA's (cuda/device_events.cpp), or those of a test.
class EventSource {
 public:
  enum class Lane : std::uint8_t { compute, aside };
  using Event = void*;
  EventSource() = default;
  /// If `beside`, jobs get a queue of high priority: a collective's few thread blocks come before the next kernel's
  /// many, because other ranks wait for them.
  EventSource(const device::Queue& compute, bool beside) : compute_(compute), aside_(compute) {
    if (beside) aside_ = own_.emplace(device::DeviceQueue::Priority::high).queue();
  }
  virtual ~EventSource() = default;
  virtual Event make() = 0;
  virtual void drop(Event event) noexcept = 0;
  /// The event is reached when all work put into the lane so far is done. Recording again replaces the earlier record.
  virtual void record(Event event, Lane lane) = 0;
  /// Work put into the lane from now on waits until the event, as last recorded, is reached.
  virtual void hold(Lane lane, Event event) = 0;
  virtual bool reached(Event event) = 0;
  /// Time between two events that are reached.
  virtual double ms(Event from, Event to) = 0;
  /// The queue where jobs put their work.
  const device::Queue& aside() const { return aside_; }
  /// Blocks the caller until the aside queue is empty.
  virtual void finish() { aside_.wait(); }

 protected:
  const device::Queue& queue(Lane lane) const { return lane == Lane::compute ? compute_ : aside_; }

 private:
  device::Queue compute_, aside_;
  std::optional<device::DeviceQueue> own_;
};

/// One thread only.
class EventOrder {
 public:
  using Ticket = std::uint64_t;
  /// If `beside` is false, the source's lanes are one queue, which needs no events to keep its order.
  EventOrder(std::unique_ptr<EventSource> source, bool beside);
  ~EventOrder();
  EventOrder(const EventOrder&) = delete;
  EventOrder& operator=(const EventOrder&) = delete;

  /// Runs the job now. The work that it puts into the aside queue begins when all work put into compute so far is done.
  Ticket post(const std::function<void()>& job);
  /// Work put into compute from now on waits for that job. Rethrows what a job threw.
  void wait(Ticket ticket);
  void wait_all() { wait(given_); }
  /// True if the device has finished that job.
  bool done(Ticket ticket);
  double take_busy_ms();     ///< time of finished jobs
  double take_stalled_ms();  ///< time that compute stood still in finished waits
  device::Queue queue() const { return source_->aside(); }
  bool beside() const { return beside_; }

 private:
  using Event = EventSource::Event;
  using Lane = EventSource::Lane;
  struct Span {
    Event from = nullptr, to = nullptr;  ///< null: nothing was put into the queue
  };
  Event take();
  void give_back(Span span);
  void retire();

  std::unique_ptr<EventSource> source_;
  bool beside_;
  Event ready_ = nullptr;
  Fifo<Span> jobs_;    ///< jobs after ticket done_
  Fifo<Span> stalls_;  ///< waits of compute
  std::vector<Event> free_;
  Ticket given_ = 0, done_ = 0, held_ = 0;  ///< held_: compute waits for jobs up to this one
  double busy_ms_ = 0, stalled_ms_ = 0;
  std::exception_ptr error_;
};

/// Events of `compute` and, if `beside`, of a second queue with higher priority. In a host build, those of the stand-in
/// for a device.
std::unique_ptr<EventSource> device_events(const device::Queue& compute, bool beside);

}  // namespace seer::comm
