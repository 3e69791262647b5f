// SPDX-License-Identifier: Apache-2.0
// Worker threads prepare batches ahead in a ring of slots, which are filled and returned in order. The pipeline knows
// nothing about images: the training loader and the evaluation reader define how to prepare a batch and run its jobs.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace seer::data {

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
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

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
  void give_back_locked();
  void stop_threads();
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

}  // namespace seer::data
