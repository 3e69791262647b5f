// SPDX-License-Identifier: Apache-2.0
// Where the time of an update goes, phase by phase. Exclusive times: what is timed inside another phase (a BatchNorm
// synchronisation inside the forward pass) counts for the inner one alone, so the rows of the table add up to the wall
// time. On a device they are times of its queue. A phase in which the device waits for the host (data, for instance)
// counts the time in which the queue is empty.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"
#include "seer/device/ledger.hpp"
#include "seer/device/queue_clock.hpp"
#include "seer/device/region.hpp"

namespace seer::train {

enum class Phase : std::uint8_t {
  data_wait,
  forward,
  bn_sync,
  loss,
  backward,
  reduce,
  optimizer,
  gather,
  checkpoint,
  other
};
inline constexpr std::size_t kPhases = 10;
const char* name_of(Phase phase);

/// Sums over `updates` updates of one rank, ms.
struct PhaseTimes {
  std::array<double, kPhases> ms{};
  double wall_ms = 0;
  double hidden_ms = 0;  ///< communication that ran beside the phases above, not part of the wall time
  std::int64_t updates = 0;
  double hidden_per_update_ms() const { return updates == 0 ? 0 : hidden_ms / static_cast<double>(updates); }
  /// Mean ms of an update; 0 before the first.
  double per_update_ms(Phase phase) const;
  double step_ms() const;
};

/// Mean ms per update over the ranks, and the fastest and slowest rank's. The last row is the whole update.
struct PhaseSummary {
  std::array<double, kPhases + 1> min_ms{}, mean_ms{}, max_ms{};
  double hidden_ms = 0;  ///< mean communication behind other phases
  std::int64_t updates = 0;
  int ranks = 1;
};

/// Used by the thread that runs the step loop alone.
class Phases {
 public:
  /// Ends its phase when destroyed. Timers nest, and end in the reverse of the order in which they began.
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
    comm::Doing before_;  ///< what the watchdog was told before
    int exceptions_;
  };

  /// By the clock of a planned machine, where one is given.
  explicit Phases(const device::Ledger* planned = nullptr) : planned_(planned) { restart(); }

  /// From here on by events in this device queue; by the host's clock again with a queue of the host.
  void measure_on(const device::Queue& queue);

  /// Of the clock that all of this goes by.
  double now_ms() const { return planned_ != nullptr ? planned_->now_ms() : clock_.ms(); }

  [[nodiscard]] Timer time(Phase phase) { return Timer(*this, phase); }
  /// For time that was measured elsewhere; taken off the timer that is running, if any.
  void add(Phase phase, double ms);
  /// Communication that nobody waited for.
  void add_hidden(double ms) { current_.hidden_ms += ms; }
  /// Closes an update: its wall time runs from the end of the one before (the first: from construction or restart());
  /// what no phase claimed becomes `other`.
  void end_update();
  /// Forgets what was timed since the last end_update(), e.g. set-up before the first update.
  void restart();

  /// Since construction.
  const PhaseTimes& total() const { return total_; }
  /// Since the last call of this function: for a line of metrics.
  PhaseTimes take_interval();

 private:
  void enter(Timer* timer);
  void read_queue();
  void begin_update();

  PhaseTimes current_, interval_, total_;
  std::unique_ptr<device::QueueClock> queue_clock_;
  const device::Ledger* planned_;
  Clock clock_;
  double update_began_ms_ = 0;
  Timer* running_ = nullptr;
};

/// Collective. Every rank has done the same number of updates.
PhaseSummary reduce(const PhaseTimes& times, const comm::Communicator& comm);

/// The table at the end of a run: ms per update, share of the wall time, fastest and slowest rank. Ends without a
/// newline.
std::string to_table(const PhaseSummary& summary);

}  // namespace seer::train
