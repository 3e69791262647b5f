// SPDX-License-Identifier: Apache-2.0
// When a run saves, and what becomes of it: the state put together, written, read back, older checkpoints deleted, and
// a file system that fails for a while survived.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/phases.hpp"
#include "seer/train/traffic.hpp"

namespace seer::train {

class Saver {
 public:
  /// Adds to a state what neither the learner nor the configuration knows: images seen, shards, schedule.
  using Describe = std::function<void(checkpoint::State&)>;

  /// Everything is the caller's, and outlives this.
  Saver(const config::Config& config, const comm::Communicator& comm, Phases& phases, TrafficLedger& traffic,
        Learner& learner, Describe describe);

  /// Tells that a checkpoint of so many updates is there already: the one that the run goes on from.
  void resumed(std::int64_t update) { saved_ = update; }

  /// Collective, after every update: saves where checkpoint.every_updates says so.
  void after_update(std::int64_t completed);
  /// Collective: saves now, unless these updates are saved already. True if they are saved now. A file system that
  /// fails is a warning, up to checkpoint.max_failures times in a row, then Error(file), the same on all ranks.
  bool save(std::int64_t completed);
  /// Collective, once the loop is over, done or stopped. Here a failure is tried again for a few seconds, then is
  /// Error(file): to end as done, or as ready to be started again, would claim a checkpoint that is not there.
  void finish(std::int64_t completed);

  /// Saves that failed since the last one that did not.
  std::int64_t failures_in_a_row() const { return failures_; }

 private:
  checkpoint::State state(std::int64_t completed) const;
  std::optional<Error> attempt(std::int64_t completed);
  void write_and_verify(std::int64_t completed);
  [[noreturn]] void give_up(const Error& failure) const;

  const config::Config& config_;
  const comm::Communicator& comm_;
  Phases& phases_;
  TrafficLedger& traffic_;
  Learner& learner_;
  Describe describe_;
  std::int64_t saved_ = -1;    ///< updates of the newest checkpoint
  std::int64_t failures_ = 0;  ///< in a row
};

}  // namespace seer::train
