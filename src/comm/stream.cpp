// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/stream.hpp"

#include <mpi.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "event_order.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/thread.hpp"

namespace seer::comm {

struct Stream::Impl {
  std::mutex mutex;
  std::condition_variable posted, finished;
  Fifo<std::function<void()>> jobs;
  Ticket given = 0, done = 0;
  std::exception_ptr error;
  double busy_ms = 0;
  bool stop = false;
  std::thread thread;
  device::Ledger* ledger = nullptr;
  std::unique_ptr<EventOrder> order;  ///< on a device

  /// Call with the lock held; it is released while the job runs. After an error, later jobs do not run.
  void run(const std::function<void()>& job, std::unique_lock<std::mutex>& lock) {
    const bool skip = error != nullptr;
    lock.unlock();
    const Clock clock;
    std::exception_ptr mine;
    try {
      if (!skip) job();
    } catch (...) {
      mine = std::current_exception();
    }
    const double ms = clock.ms();
    lock.lock();
    busy_ms += ms;
    if (mine) error = mine;
    ++done;
    finished.notify_all();
  }

  void loop() {
    std::unique_lock lock(mutex);
    for (;;) {
      posted.wait(lock, [this] { return stop || !jobs.empty(); });
      if (jobs.empty()) return;
      const auto job = std::move(jobs.front());
      jobs.pop_front();
      run(job, lock);
    }
  }
};

Stream::Stream(bool threaded, device::Ledger* ledger, const device::Queue& compute) : impl_(std::make_unique<Impl>()) {
  if (compute.space == device::Space::device) {
    impl_->order = std::make_unique<EventOrder>(device_events(compute, threaded), threaded);
    return;
  }
  if (!threaded) return;
  impl_->ledger = ledger;
  impl_->jobs.reserve(1024);  // more than an update posts
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  if (ledger == nullptr && level == MPI_THREAD_MULTIPLE)
    impl_->thread = start_thread("a thread beside the training", [impl = impl_.get()] { impl->loop(); });
}

Stream::~Stream() {
  if (!impl_->thread.joinable()) return;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->posted.notify_all();
  impl_->thread.join();
}

bool Stream::threaded() const {
  if (impl_->order) return impl_->order->beside();
  return impl_->ledger != nullptr || impl_->thread.joinable();
}

Stream::Ticket Stream::post(std::function<void()> job) {
  if (impl_->order) return impl_->order->post(job);
  if (impl_->ledger != nullptr) {
    impl_->ledger->begin_aside();
    job();
    return impl_->given = impl_->ledger->end_aside();
  }
  std::unique_lock lock(impl_->mutex);
  const Ticket ticket = ++impl_->given;
  if (threaded()) {
    impl_->jobs.push_back(std::move(job));
    impl_->posted.notify_one();
  } else {
    impl_->run(job, lock);
  }
  return ticket;
}

void Stream::wait(Ticket ticket) {
  if (impl_->order) return impl_->order->wait(ticket);
  if (impl_->ledger != nullptr) return impl_->ledger->wait(ticket);
  std::unique_lock lock(impl_->mutex);
  impl_->finished.wait(lock, [&] { return impl_->done >= ticket; });
  if (impl_->error) std::rethrow_exception(impl_->error);
}

bool Stream::done(Ticket ticket) const {
  if (impl_->order) return impl_->order->done(ticket);
  const std::lock_guard lock(impl_->mutex);
  return impl_->ledger == nullptr && impl_->done >= ticket;  // planned: nothing is known to be done early
}

void Stream::wait_all() {
  if (impl_->order) return impl_->order->wait_all();
  wait(impl_->given);
}

double Stream::take_busy_ms() {
  if (impl_->order) return impl_->order->take_busy_ms();
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->busy_ms, 0.0);
}

double Stream::take_stalled_ms() {
  return impl_->order ? impl_->order->take_stalled_ms() : 0.0;
}

device::Queue Stream::queue() const {
  return impl_->order ? impl_->order->queue() : device::Queue::of(impl_->ledger);
}

}  // namespace seer::comm
