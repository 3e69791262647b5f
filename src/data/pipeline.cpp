// SPDX-License-Identifier: Apache-2.0
#include "pipeline.hpp"

#include <numeric>
#include <tuple>

#include "seer/base/thread.hpp"

namespace seer::data {

// The largest gap that is cheaper to read than to skip with another request, and the largest size of one request.
constexpr std::uint64_t kGapBytes = std::uint64_t{64} << 10, kReadBytes = std::uint64_t{4} << 20;

Pipeline::Pipeline(std::size_t threads, std::size_t slots, std::int64_t first, std::int64_t end, Work work)
    : work_(std::move(work)), slots_(slots), handed_out_(first), end_(end), prepared_(first) {
  try {
    for (std::size_t i = 0; i < threads; ++i)
      threads_.push_back(start_thread("reader thread " + std::to_string(i + 1) + " of " + std::to_string(threads),
                                      [this, i] { this->work(i); }));
  } catch (const Error&) {
    stop_threads();
    throw;
  }
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
  // Runs `call` without the lock. Returns its error.
  const auto unlocked = [&lock](const auto& call) {
    lock.unlock();
    std::exception_ptr error;
    try {
      call();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    return error;
  };
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
      std::int64_t jobs = 0;
      slot.error = unlocked([&] { jobs = work_.prepare(batch, number_of(slot)); });
      slot.jobs = jobs;
      slot.stage = Stage::filling;
      preparing_ = false;
      for_workers_.notify_all();
      if (complete(slot)) for_caller_.notify_one();
      continue;
    }
    Slot& slot = *open;
    const std::int64_t job = slot.claimed++;
    const auto error = unlocked([&] { work_.run(number_of(slot), job, worker); });
    // Report the error of the lowest job, whichever thread failed first.
    if (error && (!slot.error || job < slot.error_job)) {
      slot.error = error;
      slot.error_job = job;
    }
    ++slot.done;
    if (slot.done == slot.jobs && work_.finish && !slot.error) {
      slot.finishing = true;
      slot.error = unlocked([&] { work_.finish(number_of(slot), worker); });
      slot.finishing = false;
    }
    if (complete(slot)) for_caller_.notify_one();
  }
}

void Pipeline::give_back() {
  std::lock_guard lock(mutex_);
  if (!lent_) return;
  slots_[*lent_].stage = Stage::free;
  lent_.reset();
  for_workers_.notify_all();
}

bool Pipeline::ready() {
  std::lock_guard lock(mutex_);
  if (handed_out_ >= end_) return true;
  const Slot& slot = slot_of(handed_out_);
  return slot.batch == handed_out_ && complete(slot);
}

std::optional<std::size_t> Pipeline::next() {
  give_back();
  std::unique_lock lock(mutex_);
  if (handed_out_ >= end_) return std::nullopt;
  Slot& slot = slot_of(handed_out_);
  for_caller_.wait(lock, [&] { return slot.batch == handed_out_ && complete(slot); });
  ++handed_out_;
  slot.stage = Stage::lent;
  lent_ = number_of(slot);
  if (slot.error) std::rethrow_exception(slot.error);
  return lent_;
}

const PlaceCache::Block& PlaceCache::block_of(std::uint64_t image) {
  const std::uint64_t number = image / block_images_, first = number * block_images_;
  if (const auto found = by_number_.find(number); found != by_number_.end()) {
    blocks_.splice(blocks_.begin(), blocks_, found->second);
  } else {
    const auto count = std::min(block_images_, data_.images() - first);
    blocks_.push_front(
        {number, data_.places(first, count), labels_ == Labels::read ? data_.targets(first, count) : Targets()});
    by_number_[number] = blocks_.begin();
    if (blocks_.size() > kept_) {
      by_number_.erase(blocks_.back().number);
      blocks_.pop_back();
    }
  }
  return blocks_.front();
}

void Fetch::plan(std::vector<ImagePlace> places) {
  places_ = std::move(places);
  reads_.clear();
  read_of_.resize(places_.size());
  held_ = 0;
  order_.resize(places_.size());
  std::iota(order_.begin(), order_.end(), std::int64_t{0});
  std::ranges::sort(order_, {}, [this](std::int64_t i) { return std::tuple(place(i).shard, place(i).offset, i); });
  for (const std::int64_t i : order_) {
    const auto& at = place(i);
    const std::uint64_t end = at.offset + at.bytes;
    Read* read = reads_.empty() ? nullptr : &reads_.back();
    const bool joins = read != nullptr && read->shard == at.shard &&
                       at.offset <= read->offset + read->bytes + kGapBytes && end <= read->offset + kReadBytes;
    if (!joins) {
      read = &reads_.emplace_back();
      read->shard = at.shard;
      read->offset = at.offset;
    }
    read->bytes = std::max(read->bytes, end - read->offset);
    ++read->users;
    read_of_[static_cast<std::size_t>(i)] = read;
  }
}

std::span<const std::uint8_t> Fetch::bytes(const DataSet& data, std::int64_t image) {
  Read& read = *read_of_[static_cast<std::size_t>(image)];
  std::lock_guard lock(read.mutex);
  if (!read.done) {
    read.buffer.resize(read.bytes);
    held_ += static_cast<std::int64_t>(read.bytes);
    data.read(read.shard, read.offset, read.bytes, read.buffer.data());
    read.done = true;
  }
  return std::span(read.buffer).subspan(place(image).offset - read.offset, place(image).bytes);
}

void Fetch::release(std::int64_t image) {
  Read& read = *read_of_[static_cast<std::size_t>(image)];
  std::lock_guard lock(read.mutex);
  if (--read.users > 0) return;
  held_ -= static_cast<std::int64_t>(read.buffer.size());
  std::vector<std::uint8_t>().swap(read.buffer);
}

}  // namespace seer::data
