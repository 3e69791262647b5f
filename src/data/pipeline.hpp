// SPDX-License-Identifier: Apache-2.0
// What the training loader and the evaluation reader share: worker threads that prepare batches ahead, and reading the
// encoded images of a batch.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "seer/data/source.hpp"

namespace seer::data {

/// Worker threads prepare batches ahead in a ring of slots, which are filled and returned in order. The pipeline knows
/// nothing about images: its users define how to prepare a batch and run its jobs.
class Pipeline {
 public:
  struct Work {
    /// Prepares `batch` in `slot` and returns its number of jobs. Called for one batch at a time, in order.
    std::function<std::int64_t(std::int64_t batch, std::size_t slot)> prepare;
    /// Runs job `job` of the batch in `slot`. Many threads at a time; `worker` is the calling thread's number.
    std::function<void(std::size_t slot, std::int64_t job, std::size_t worker)> run;
    /// Optional. Completes a batch after all its jobs have succeeded; the batch is ready after that.
    std::function<void(std::size_t slot, std::size_t worker)> finish = {};
  };

  /// For batches [first, end). The threads start at once.
  Pipeline(std::size_t threads, std::size_t slots, std::int64_t first, std::int64_t end, Work work);
  /// Waits only for the jobs that are running.
  ~Pipeline() { stop_threads(); }

  /// Gives back the slot of the last call and waits for the next batch; nullopt after the last one. Rethrows the error
  /// of the batch's first failed job.
  std::optional<std::size_t> next();
  /// Gives back the slot of the last call now.
  void give_back();
  /// Whether next() would return at once.
  bool ready();

 private:
  enum class Stage : std::uint8_t { free, preparing, filling, lent };
  struct Slot {
    Stage stage = Stage::free;
    std::int64_t batch = -1, jobs = 0, claimed = 0, done = 0;
    std::exception_ptr error;
    std::int64_t error_job = 0;
    bool finishing = false;
  };

  void work(std::size_t worker);
  bool complete(const Slot& slot) const {
    return slot.stage == Stage::filling && slot.done == slot.jobs && !slot.finishing;
  }
  void stop_threads();
  std::size_t number_of(const Slot& slot) const { return static_cast<std::size_t>(&slot - slots_.data()); }
  Slot& slot_of(std::int64_t batch) { return slots_[static_cast<std::size_t>(batch) % slots_.size()]; }
  /// The oldest slot with a job that no thread has taken.
  Slot* open_slot();

  Work work_;
  std::vector<Slot> slots_;
  std::int64_t handed_out_, end_, prepared_;  // next batch to hand out; end; next batch to prepare
  bool preparing_ = false, stop_ = false;
  std::optional<std::size_t> lent_;
  std::mutex mutex_;
  std::condition_variable for_workers_, for_caller_;
  std::vector<std::thread> threads_;
};

/// Places and classes of images, read from the shards' tables one block at a time. Keeps the most recently used blocks,
/// since a sampler's window touches few. One thread at a time.
class PlaceCache {
 public:
  PlaceCache(const DataSet& data, std::uint64_t block_images, std::size_t blocks_kept, Labels labels)
      : data_(data), block_images_(block_images), kept_(blocks_kept), labels_(labels) {}
  ImagePlace place(std::uint64_t image) { return block_of(image).places[image % block_images_]; }
  /// The image's classes, none if labels are not read; valid until the next call of place() or targets().
  std::span<const std::int32_t> targets(std::uint64_t image) {
    if (labels_ == Labels::ignore) return {};
    return block_of(image).targets.of(image % block_images_);
  }
  std::int64_t bytes() const {
    return static_cast<std::int64_t>(std::min(kept_ * block_images_, data_.images()) * kImageBytes);
  }
  /// Bytes held per image: its place, the begin of its classes, and one class.
  static constexpr std::size_t kImageBytes = sizeof(ImagePlace) + sizeof(std::uint64_t) + sizeof(std::int32_t);

 private:
  struct Block {
    std::uint64_t number = 0;
    std::vector<ImagePlace> places;
    Targets targets;
  };
  const Block& block_of(std::uint64_t image);
  const DataSet& data_;
  std::uint64_t block_images_;
  std::size_t kept_;
  Labels labels_;
  std::list<Block> blocks_;  // most recent first
  std::unordered_map<std::uint64_t, std::list<Block>::iterator> by_number_;
};

/// Fetches the encoded images of one batch with few large reads: images that lie close together in a shard share one
/// read. One thread calls plan(); many may call bytes() and release().
class Fetch {
 public:
  /// `places`: of images 0, 1, ... of the batch.
  void plan(std::vector<ImagePlace> places);
  const ImagePlace& place(std::int64_t image) const { return places_[static_cast<std::size_t>(image)]; }
  /// The images in file order: process them in this order.
  std::int64_t image(std::int64_t number) const { return order_[static_cast<std::size_t>(number)]; }
  /// Returns the encoded image. The first caller of a shared read does the read, others wait for it. Error(file) if the
  /// read fails.
  std::span<const std::uint8_t> bytes(const DataSet& data, std::int64_t image);
  /// Says that the image's bytes are no longer needed. The last release of a shared read frees its memory.
  void release(std::int64_t image);
  /// Bytes of this batch that are in memory now.
  std::int64_t bytes_held() const { return held_.load(std::memory_order_relaxed); }

 private:
  struct Read {
    std::uint32_t shard = 0;
    std::uint64_t offset = 0, bytes = 0;
    std::int64_t users = 0;
    std::vector<std::uint8_t> buffer;
    bool done = false;
    std::mutex mutex;
  };
  std::vector<ImagePlace> places_;
  std::vector<std::int64_t> order_;
  std::deque<Read> reads_;
  std::vector<Read*> read_of_;  // per image
  std::atomic<std::int64_t> held_{0};
};

}  // namespace seer::data
