// SPDX-License-Identifier: Apache-2.0
// Each rank has a thread that detects hangs. If its rank shows no progress (seer/comm/progress.hpp) for longer than the
// limit of its current stage, the thread asks all ranks for their state. It uses files in <run folder>/hang/, because
// collectives cannot be trusted in a hang. Each rank answers with hang/<rank>.txt (update, phase, counts of
// collectives, the last ones) and, if it is over its own limit, hang/<rank>.stack.txt. The lowest rank that still runs
// reports which rank does not answer, or which has not entered the collective that others wait in, and ends all ranks
// with exit code 5. If some rank is still within its own limit, that rank is slow and does not hang: the run goes on
// with a warning.
#pragma once

#include <memory>
#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::watch {

/// Seconds without progress that count as a hang; 0: never.
struct SilenceLimits {
  double set_up_s = 0, update_s = 0, checkpoint_s = 0;
};

class Watchdog {
 public:
  /// Collective over the whole world. Removes files of an earlier start from <run folder>/hang. Watches the progress
  /// that all threads report. In a hang it writes the stack of the thread that called this constructor.
  Watchdog(const comm::Communicator& world, const std::string& run_dir, SilenceLimits limits);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::watch
