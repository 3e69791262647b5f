// SPDX-License-Identifier: Apache-2.0
// Decides when a run saves, and does it: collects the state, writes it beside the training, reads it back, deletes
// older checkpoints, and survives a file system that fails for a while.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/local.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/run/records.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/phases.hpp"

namespace seer::run {

/// Seconds of training between two checkpoints that lose the least time, if one costs `cost_s` and the whole job fails
/// every `mean_time_between_failures_s`: sqrt(2 cost MTBF) (Young 1974; Daly 2006, first order). Never less than
/// `cost_s`, nor than `writing_s`, the time to write one beside the training: the next one would have to wait.
double best_interval_s(double cost_s, double writing_s, double mean_time_between_failures_s);
/// Share of the time that goes to checkpoints and to failures with this interval. A failure loses all work since the
/// start of the last complete checkpoint; one that is still being written is lost too.
double lost_share(double cost_s, double writing_s, double interval_s, double mean_time_between_failures_s);

/// How often to save: checkpoint.every_updates, or the best interval by Young and Daly. The same on all ranks.
class CheckpointInterval {
 public:
  /// "auto" saves first after this many updates, to have something to measure.
  static constexpr std::int64_t kFirstUpdates = 20;

  CheckpointInterval(const config::Checkpoint& config, int nodes, std::int64_t start = 0)
      : every_(config.every_updates),
        mean_time_between_failures_s_(3600 * config.mean_time_between_failures_hours / nodes) {
    start_at(start);
  }

  bool automatic() const { return every_ == 0; }
  /// The run goes on after `completed` updates.
  void start_at(std::int64_t completed) {
    last_ = completed;
    next_ = completed + kFirstUpdates;
  }
  /// True if a checkpoint is due after `completed` updates.
  bool due(std::int64_t completed) const { return automatic() ? completed >= next_ : completed % every_ == 0; }
  /// Adds an update: its time without saving, and whether a checkpoint was being written meanwhile.
  void add_update(double seconds, bool writing) {
    auto& mean = writing ? writing_ : quiet_;
    mean.sum += seconds;
    ++mean.count;
  }
  /// Adds a checkpoint that began after `completed` updates: `stall_s` is how long training stopped for it, `writing_s`
  /// how long the last finished one was being written beside training. Collective if automatic(): the root decides.
  void add_save(const comm::Communicator& comm, std::int64_t completed, double stall_s, double writing_s);
  /// Updates between the last checkpoint and the next.
  std::int64_t updates() const { return automatic() ? next_ - last_ : every_; }

 private:
  struct Mean {
    double sum = 0;
    std::int64_t count = 0;
    double value() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
  };
  std::int64_t every_, last_ = 0, next_ = 0;
  double mean_time_between_failures_s_;
  Mean quiet_, writing_;  ///< updates since the last checkpoint: alone, and beside writing
};

class Saver {
 public:
  /// Adds to a state what neither the learner nor the configuration has: images seen, shards, schedule.
  using Describe = std::function<void(checkpoint::State&)>;

  /// Collective. All arguments must outlive this; `local` is null without checkpoint.local_dir.
  Saver(const config::Config& config, const comm::Communicator& comm, train::Phases& phases, TrafficLedger& traffic,
        train::Learner& learner, const checkpoint::LocalSets* local, Describe describe);

  /// There is a checkpoint of `update` updates already: the one that the run continues.
  void resumed(std::int64_t update) {
    saved_ = update;
    interval_.start_at(update);
  }

  /// Collective. Call after every update: saves if checkpoint.every_updates or local_every_updates says so. While the
  /// run does not trust itself (Guard::trusts), saves are postponed to the first update after that.
  void after_update(std::int64_t completed, bool trusted = true);
  /// Collective. Saves now, unless these updates are saved already. With checkpoint.async the values are copied, and
  /// written after the return; only an earlier save that is still being written is waited for. Returns false if the
  /// save is known to have failed. A failing file system is a warning, up to checkpoint.max_failures times in a row,
  /// then Error(file), the same on all ranks; with checkpoint.async all ranks learn of a failure at the next save.
  bool save(std::int64_t completed) {
    const bool saved = run({completed, true, local_due(completed, true)});
    since_.restart();
    return saved;
  }
  /// Collective. The same for the best network so far: once its checkpoint is complete, writes `text` to run_dir/BEST,
  /// and never deletes that checkpoint until a better one is complete.
  void save_best(std::int64_t completed, const std::string& text) {
    best_text_ = text;
    save(completed);
    best_text_.clear();
  }
  /// A checkpoint of `update` updates is the best one already; it is not deleted. Negative: none.
  void keep_best(std::int64_t update) { best_ = update; }
  /// Collective. Waits until nothing is being written. Call before checkpoints are read during training.
  void settle() {
    const auto failure = collect(Tell::all);
    if (failure && ++failures_ > config_.checkpoint.max_failures) give_up(*failure);
  }
  /// Collective. Call once the loop is over, done or stopped: settles, and saves unless that is done. Retries a failure
  /// for a few seconds, then Error(file): ending as complete, or as ready to restart, would claim a checkpoint that
  /// does not exist.
  void finish(std::int64_t completed);

  /// Failed saves since the last successful one.
  std::int64_t failures_in_a_row() const { return failures_; }
  /// Bytes of the copy.
  std::int64_t bytes_held() const { return snapshot_.bytes_held(); }
  /// Messages of the writing threads.
  const std::vector<comm::Traffic>& traffic() const { return background_.traffic(); }

 private:
  /// A save to do, or in progress.
  struct Job {
    std::int64_t update = 0;
    bool shared = false, local = false;  ///< to log.run_dir, to checkpoint.local_dir
    std::string best{};                  ///< text for run_dir/BEST; "": this is not the best network
  };
  bool local_due(std::int64_t completed, bool shared) const;
  std::string fallback() const;
  bool run(const Job& job);
  checkpoint::State state(std::int64_t completed) const;
  void begin(const Job& job);
  void write(const comm::Communicator& comm, const Job& job, const std::vector<checkpoint::Slab>& slabs,
             const checkpoint::State& state);
  enum class Tell : bool { success, all };
  std::optional<Error> collect(Tell what);
  void tell(const checkpoint::Background::Outcome& outcome, Tell what);
  [[noreturn]] void give_up(const Error& failure) const;

  const config::Config& config_;
  const comm::Communicator& comm_;
  train::Phases& phases_;
  TrafficLedger& traffic_;
  train::Learner& learner_;
  const checkpoint::LocalSets* local_;
  Describe describe_;
  CheckpointInterval interval_;
  Clock since_;                ///< since the last update
  Job job_;                    ///< the save in progress, or the last one
  Job put_off_{};              ///< a save postponed because recent updates were bad (Guard::trusts)
  bool told_ = true;           ///< the outcome of job_ has been reported
  double writing_s_ = 0;       ///< seconds that the last finished save ran beside the training
  std::int64_t saved_ = -1;    ///< updates of the newest checkpoint
  std::int64_t failures_ = 0;  ///< in a row
  std::string best_text_;      ///< for the next save
  // Written by the writing thread; read when it has finished:
  std::optional<Error> local_failure_;
  std::string written_;     ///< folder of the checkpoint
  std::int64_t best_ = -1;  ///< updates of the best network's checkpoint
  checkpoint::Snapshot snapshot_;
  checkpoint::Background background_;  // last: its thread uses the others
};

}  // namespace seer::run
