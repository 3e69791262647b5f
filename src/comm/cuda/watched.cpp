// SPDX-License-Identifier: Apache-2.0
// The thread that watches NCCL communicators while others compute or wait for a device. That device may wait for a rank
// that is gone, and CUDA's own waits know nothing of other ranks.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <thread>

#include "live.hpp"
#include "seer/base/thread.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/device/cuda.hpp"

namespace seer::comm {
namespace {

using namespace std::chrono_literals;
constexpr auto kPeriod = 20ms;
/// A failing rank reports its error and ends all others. Its message is the better one, so wait for it.
constexpr auto kGrace = 10s;

class Watch {
 public:
  void add(const std::shared_ptr<Live>& live) {
    std::unique_lock lock(mutex_);
    all_.push_back(live);
    if (all_.size() > 1) return;
    stop_ = false;
    // Requests to stop and alarms are for the other threads; a crash in this one must still be caught.
    sigset_t others, before;
    sigfillset(&others);
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&others, signal);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    thread_ = start_thread("the thread that watches NCCL", [this] { loop(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
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

Watched::Watched(std::shared_ptr<Live> live) : live_(std::move(live)) {
  watch().add(live_);
}

Watched::~Watched() {
  watch().remove(live_);
}

}  // namespace seer::comm
