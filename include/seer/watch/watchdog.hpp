// SPDX-License-Identifier: Apache-2.0
// A thread a rank that turns silence into an error. Where a rank shows no sign of progress (seer/comm/progress.hpp) for
// longer than what it is doing may take, it asks all ranks, through files in <run folder>/hang/ since collectives
// cannot be trusted then, where they stand. Each answers with hang/<rank>.txt (update, phase, counts of collectives,
// the last ones) and hang/<rank>.stack.txt. The lowest rank that lives tells which rank does not answer, or which has
// not entered the collective that others wait in, and ends all ranks with exit code 5. If some rank is still within its
// own limit, it is slow and not hanging: a warning, and the run goes on.
#pragma once

#include <memory>
#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::watch {

/// Seconds of silence that count as a hang; 0: never.
struct SilenceLimits {
  double set_up_s = 0, update_s = 0, checkpoint_s = 0;
};

class Watchdog {
 public:
  /// Collective over the whole world. Removes what an earlier start left in <run folder>/hang. Watches the calling
  /// thread and what all threads tell.
  Watchdog(const comm::Communicator& world, const std::string& run_dir, SilenceLimits limits);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::watch
