// SPDX-License-Identifier: Apache-2.0
#include "pipeline.hpp"

#include <string>
#include <utility>

#include "seer/base/thread.hpp"

namespace seer::data {

Pipeline::Pipeline(std::size_t threads, std::size_t slots, std::int64_t first, std::int64_t end, Work work)
    : work_(std::move(work)), slots_(slots), handed_out_(first), end_(end), prepared_(first) {
  try {
    for (std::size_t i = 0; i < threads; ++i) {
      threads_.push_back(start_thread("reader thread " + std::to_string(i + 1) + " of " + std::to_string(threads),
                                      [this, i] { this->work(i); }));
    }
  } catch (const Error&) {
    stop_threads();
    throw;
  }
}

Pipeline::~Pipeline() {
  stop_threads();
}

void Pipeline::stop_threads() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  for_workers_.notify_all();
  for (auto& thread : threads_) thread.join();
}

Pipeline::Slot* Pipeline::open_slot() {
  for (std::int64_t batch = handed_out_; batch < prepared_; ++batch) {
    Slot& slot = slot_of(batch);
    if (slot.batch == batch && slot.stage == Stage::filling && slot.claimed < slot.jobs) return &slot;
  }
  return nullptr;
}

void Pipeline::work(std::size_t worker) {
  std::unique_lock lock(mutex_);
  for (;;) {
    Slot* open = nullptr;
    const auto can_prepare = [this] {
      return !preparing_ && prepared_ < end_ && slot_of(prepared_).stage == Stage::free;
    };
    for_workers_.wait(lock, [&] { return stop_ || (open = open_slot()) != nullptr || can_prepare(); });
    if (stop_) return;
    if (open == nullptr) {
      const std::int64_t batch = prepared_++;
      Slot& slot = slot_of(batch);
      slot = Slot{.stage = Stage::preparing, .batch = batch, .error = nullptr};
      preparing_ = true;
      lock.unlock();
      std::int64_t jobs = 0;
      std::exception_ptr error;
      try {
        jobs = work_.prepare(batch, static_cast<std::size_t>(&slot - slots_.data()));
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      slot.jobs = jobs;
      slot.error = error;
      slot.stage = Stage::filling;
      preparing_ = false;
      for_workers_.notify_all();
      if (complete(slot)) for_caller_.notify_one();
      continue;
    }
    Slot& slot = *open;
    const std::int64_t job = slot.claimed++;
    lock.unlock();
    std::exception_ptr error;
    try {
      work_.run(static_cast<std::size_t>(&slot - slots_.data()), job, worker);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    // Report the error of the lowest job, whichever thread failed first.
    if (error && (!slot.error || job < slot.error_job)) {
      slot.error = error;
      slot.error_job = job;
    }
    ++slot.done;
    if (slot.done == slot.jobs && work_.finish && !slot.error) {
      slot.finishing = true;
      lock.unlock();
      try {
        work_.finish(static_cast<std::size_t>(&slot - slots_.data()), worker);
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      slot.error = error;
      slot.finishing = false;
    }
    if (complete(slot)) for_caller_.notify_one();
  }
}

void Pipeline::give_back_locked() {
  if (!lent_) return;
  slots_[*lent_].stage = Stage::free;
  lent_.reset();
  for_workers_.notify_all();
}

void Pipeline::give_back() {
  std::lock_guard lock(mutex_);
  give_back_locked();
}

bool Pipeline::ready() {
  std::lock_guard lock(mutex_);
  if (handed_out_ >= end_) return true;
  const Slot& slot = slot_of(handed_out_);
  return slot.batch == handed_out_ && complete(slot);
}

std::optional<std::size_t> Pipeline::next() {
  std::unique_lock lock(mutex_);
  give_back_locked();
  if (handed_out_ >= end_) return std::nullopt;
  Slot& slot = slot_of(handed_out_);
  for_caller_.wait(lock, [&] { return slot.batch == handed_out_ && complete(slot); });
  ++handed_out_;
  slot.stage = Stage::lent;
  lent_ = static_cast<std::size_t>(&slot - slots_.data());
  if (slot.error) std::rethrow_exception(slot.error);
  return lent_;
}

}  // namespace seer::data
