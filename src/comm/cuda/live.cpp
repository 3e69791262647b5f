// SPDX-License-Identifier: Apache-2.0
#include "live.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <thread>
#include <utility>

#include "seer/comm/communicator.hpp"
#include "seer/comm/ending.hpp"
#include "seer/device/cuda.hpp"

namespace seer::comm {
namespace {

cudaError_t query(cudaEvent_t event) {
  const auto status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) cudaGetLastError();  // otherwise the next check for errors finds it
  return status;
}

using namespace std::chrono_literals;
constexpr auto kPeriod = 20ms;
// A failing rank reports its error and ends all others. Its message is the better one, so wait for it.
constexpr auto kGrace = 10s;

/// The thread that watches NCCL communicators while others compute or wait for a device. That device may wait for a
/// rank that is gone, and CUDA's own waits know nothing of other ranks.
class Watch {
 public:
  void add(const std::shared_ptr<Live>& live) {
    std::unique_lock lock(mutex_);
    all_.push_back(live);
    if (all_.size() > 1) return;
    stop_ = false;
    thread_ = start_watching_thread("the thread that watches NCCL", [this] { loop(); });
  }

  void remove(const std::shared_ptr<Live>& live) {
    std::thread ending;
    {
      const std::lock_guard lock(mutex_);
      all_.erase(std::find(all_.begin(), all_.end(), live));
      if (!all_.empty()) return;
      stop_ = true;
      ending = std::move(thread_);
    }
    changed_.notify_all();
    ending.join();
  }

 private:
  void loop() {
    device::make_current();
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kPeriod, [this] { return stop_; })) {
      for (const auto& live : all_) {
        if (live->look() == ncclSuccess) continue;
        if (changed_.wait_for(lock, kGrace, [this] { return stop_; })) return;
        say_and_end(lock);
        break;  // settled meanwhile, and all_ may have changed
      }
    }
  }

  /// Call with the lock held. die() runs without it: a thread that holds communicators may wait for it.
  void say_and_end(std::unique_lock<std::mutex>& lock) {
    for (const auto& live : all_) {
      const auto state = live->look();
      if (state == ncclSuccess) continue;
      const auto error = nccl_error(state, "NCCL");
      lock.unlock();
      die(error.message(), static_cast<int>(error.code()));
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Live>> all_;
  std::thread thread_;
  bool stop_ = false;
};

Watch& watch() {
  static auto* const w = new Watch;  // never destroyed: the order of destruction must not matter
  return *w;
}

}  // namespace

Error nccl_error(ncclResult_t status, const char* call, std::source_location where) {
  std::string what = fmt::format("{}: {}", call, ncclGetErrorString(status));
  const char* words = ncclGetLastError(nullptr);  // the last error of the process, whatever the communicator
  if (words != nullptr && *words != '\0') what += fmt::format(" ({})", words);
  return Error(ExitCode::device, what,
               status == ncclRemoteError ? "another rank of this communicator ended: its message says why"
                                         : "set NCCL_DEBUG=WARN to get more messages from NCCL",
               where);
}

Live::~Live() {
  abort();  // only if another rank could not start
  for (const auto event : free_) cudaEventDestroy(event);
}

void Live::start(int size, int rank, const ncclUniqueId& id, [[maybe_unused]] Trace* trace) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;  // calls return only when their work is in the queue
#if NCCL_VERSION_CODE >= 22700
  config.commName = trace->name.load();  // never freed: it belongs to the watchdog
#endif
  ncclComm_t made = nullptr;
  check(ncclCommInitRankConfig(&made, size, id, rank, &config), "ncclCommInitRankConfig");
  const std::lock_guard lock(mutex_);
  comm_ = made;
}

void Live::under_way(const OpenMark& mark, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  cudaEvent_t landed = nullptr;
  if (free_.empty()) {
    device::check(cudaEventCreateWithFlags(&landed, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  } else {
    landed = free_.back();
    free_.pop_back();
  }
  if (const auto status = cudaEventRecord(landed, stream); status != cudaSuccess) {
    free_.push_back(landed);
    device::check(status, "cudaEventRecord");
  }
  flights_.push_back({mark, landed});
}

/// A failed device answers neither "ready" nor "not ready". Its user gets the error; no collective counts as finished.
void Live::retire() {
  while (!flights_.empty() && query(flights_.front().landed) == cudaSuccess) {
    close_mark(flights_.front().mark);
    free_.push_back(flights_.front().landed);
    flights_.pop_front();
  }
}

ncclResult_t Live::look() {
  const std::lock_guard lock(mutex_);
  retire();
  if (comm_ == nullptr) return ncclSuccess;
  ncclResult_t state = ncclSuccess;
  const auto status = ncclCommGetAsyncError(comm_, &state);
  if (status != ncclSuccess) return status;
  return state == ncclInProgress ? ncclSuccess : state;
}

void Live::settle() {
  for (;;) {
    const auto state = look();
    if (state != ncclSuccess) {
      const auto error = nccl_error(state, "waiting for NCCL");
      abort();
      throw error;
    }
    cudaEvent_t next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (flights_.empty()) return;
      next = flights_.front().landed;
    }
    const auto status = query(next);
    if (status != cudaErrorNotReady) device::check(status, "cudaEventQuery");
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

ncclComm_t Live::take() noexcept {
  const std::lock_guard lock(mutex_);
  for (const auto& flight : flights_) {
    close_mark(flight.mark);
    free_.push_back(flight.landed);
  }
  flights_.clear();
  return std::exchange(comm_, nullptr);
}

void Live::abort() noexcept {
  if (const auto gone = take()) ncclCommAbort(gone);
}

void Live::end() noexcept {
  if (const auto gone = take()) ncclCommDestroy(gone);
}

Watched::Watched(std::shared_ptr<Live> live) : live_(std::move(live)) {
  watch().add(live_);
}

Watched::~Watched() {
  watch().remove(live_);
}

}  // namespace seer::comm
