// SPDX-License-Identifier: Apache-2.0
// Measures the time of each phase of an update. Times are exclusive: a phase inside another (BatchNorm synchronisation
// in the forward pass) counts only as the inner one, so the rows of the table add up to the wall time. On a device,
// these are times of its queue; time while the queue is empty counts for the phase in which the host keeps it waiting.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "seer/base/clock.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/ledger.hpp"
#include "seer/device/region.hpp"

namespace seer::train {

enum class Phase {
  data_wait,
  forward,
  bn_sync,
  loss,
  backward,
  reduce,
  optimizer,
  gather,
  checkpoint,
  evaluation,
  other
};
inline constexpr std::size_t kPhases = 11;
const char* name_of(Phase phase);
constexpr std::size_t index(Phase phase) {
  return static_cast<std::size_t>(phase);
}

/// Of a pass, segment by segment.
enum class Direction : std::int8_t { forward = 1, backward = -1 };

/// Sums over `updates` updates of one rank, ms.
struct PhaseTimes {
  std::array<double, kPhases> ms{};
  double wall_ms = 0;
  double hidden_ms = 0;  ///< communication beside the phases above, not part of the wall time
  std::int64_t updates = 0;
  // Mean ms per update; 0 before the first.
  double per_update_ms(Phase phase) const { return per_update(ms[index(phase)]); }
  double hidden_per_update_ms() const { return per_update(hidden_ms); }
  double step_ms() const { return per_update(wall_ms); }
  double per_update(double sum) const { return updates == 0 ? 0 : sum / static_cast<double>(updates); }
};

/// ms per update: mean over the ranks, fastest and slowest rank. The last row is the whole update.
struct PhaseSummary {
  std::array<double, kPhases + 1> min_ms{}, mean_ms{}, max_ms{};
  double hidden_ms = 0;  ///< mean communication hidden behind other phases
  std::int64_t updates = 0;
  int ranks = 1;
};

/// Only for the thread that runs the step loop.
class Phases {
 public:
  /// Ends its phase when destroyed. Timers nest, and end in reverse order.
  class Timer {
   public:
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    friend class Phases;
    Timer(Phases& owner, Phase phase);
    Phases& owner_;
    Phase phase_;
    device::Region region_;
    double began_ms_;
    Timer* outer_;
    double inner_ms_ = 0;
    comm::Doing before_;  ///< the watchdog's state before this timer
    int exceptions_;
  };

  /// `planned`: the clock of a planned machine; null: the host's clock.
  explicit Phases(const device::Ledger* planned = nullptr) : planned_(planned) { restart(); }

  /// From now on, measures by events in this device queue; with a host queue, by the host's clock again.
  void measure_on(const device::Queue& queue);

  /// Time of the clock in use.
  double now_ms() const { return planned_ != nullptr ? planned_->now_ms() : clock_.ms(); }

  [[nodiscard]] Timer time(Phase phase) { return Timer(*this, phase); }
  /// Adds time that was measured elsewhere. The running timer, if any, does not count it.
  void add(Phase phase, double ms) {
    current_.ms[index(phase)] += ms;
    if (running_ != nullptr) running_->inner_ms_ += ms;
  }
  /// Adds communication that nobody waited for.
  void add_hidden(double ms) { current_.hidden_ms += ms; }
  /// Ends an update, which began at the end of the one before, or at restart(). Time without a phase becomes `other`.
  void end_update();
  /// Forgets the time since the last end_update(), e.g. set-up before the first update.
  void restart() {
    read_queue();
    begin_update();
  }

  /// Sums since construction.
  const PhaseTimes& total() const { return total_; }
  /// Sums since the last call of this function: for a line of metrics.
  PhaseTimes take_interval() { return std::exchange(interval_, {}); }

 private:
  /// Makes `timer` the running one; null: none.
  void enter(Timer* timer) {
    running_ = timer;
    if (queue_clock_ != nullptr) queue_clock_->mark(static_cast<int>(timer != nullptr ? timer->phase_ : Phase::other));
  }
  void read_queue();
  void begin_update() {
    current_ = {};
    update_began_ms_ = now_ms();
  }

  PhaseTimes current_, interval_, total_;
  std::unique_ptr<device::QueueClock> queue_clock_;
  const device::Ledger* planned_;
  Clock clock_;
  double update_began_ms_ = 0;
  Timer* running_ = nullptr;
};

/// Collective. Every rank must have done the same number of updates.
PhaseSummary reduce(const PhaseTimes& times, const comm::Communicator& comm);

/// The table at the end of a run: ms per update, share of the wall time, fastest and slowest rank. No final newline.
std::string to_table(const PhaseSummary& summary);

}  // namespace seer::train
