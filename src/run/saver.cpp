// SPDX-License-Identifier: Apache-2.0
#include "seer/run/saver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "seer/base/log.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::run {
namespace {

/// Between the attempts of the last save: long enough for a file server to come back, short enough for a job's end.
constexpr std::chrono::seconds kFinalPauses[] = {std::chrono::seconds(1), std::chrono::seconds(5)};
/// A warning follows if a save waits longer than this for the one before it.
constexpr double kNoticeable_s = 0.5;

/// True for a failure of the file system that all ranks know; anything else is a defect or a lost rank.
bool is_survivable(const Error& e) {
  return e.agreed() && e.code() == ExitCode::file;
}

std::string remedy_of(const Error& e) {
  return e.remedy().empty() ? "check that the file system of log.run_dir is there, works and can be written"
                            : e.remedy();
}

/// The checkpoint is there whether this works or not.
void write_best(const std::string& run_dir, const std::string& text) {
  const auto problem = checkpoint::problem_of([&] {
    checkpoint::replace_file(run_dir + "/BEST",
                             [&](const std::string& temporary) { checkpoint::write_text(temporary, text); });
  });
  if (!problem.empty()) log::warn(fmt::format("{}; the run goes on without this file", problem));
}

}  // namespace

double best_interval_s(double cost_s, double writing_s, double mean_time_between_failures_s) {
  return std::max({std::sqrt(2 * cost_s * mean_time_between_failures_s), cost_s, writing_s});
}

double lost_share(double cost_s, double writing_s, double interval_s, double mean_time_between_failures_s) {
  return cost_s / interval_s + (interval_s / 2 + writing_s) / mean_time_between_failures_s;
}

void CheckpointInterval::add_save(const comm::Communicator& comm, std::int64_t completed, double stall_s,
                                  double writing_s) {
  // If writing slowed the updates beside it, that is part of the cost. It is unknown if all updates were beside it.
  const double slower_s = quiet_.count > 0 && writing_.count > 0 ? writing_.value() - quiet_.value() : 0;
  const double cost_s = stall_s + std::max(0.0, slower_s) * static_cast<double>(writing_.count);
  const double update_s =
      (quiet_.sum + writing_.sum) / static_cast<double>(std::max<std::int64_t>(1, quiet_.count + writing_.count));
  quiet_ = writing_ = {};
  last_ = completed;
  if (!automatic()) return;
  next_ = completed + kFirstUpdates;  // for a save right after the start: nothing was measured
  if (update_s > 0) {
    const double updates = best_interval_s(cost_s, writing_s, mean_time_between_failures_s_) / update_s;
    next_ = completed + static_cast<std::int64_t>(std::clamp(std::round(updates), 1.0, 1e12));
  }
  comm.broadcast(&next_, sizeof next_);
}

Saver::Saver(const config::Config& config, const comm::Communicator& comm, train::Phases& phases,
             TrafficLedger& traffic, train::Learner& learner, const checkpoint::LocalSets* local, Describe describe)
    : config_(config),
      comm_(comm),
      phases_(phases),
      traffic_(traffic),
      learner_(learner),
      local_(local),
      describe_(std::move(describe)),
      interval_(config.checkpoint, local != nullptr ? local->nodes().count() : comm::Nodes(comm).count()),
      background_(comm, config.checkpoint.async) {
  if (config.checkpoint.async && !background_.threaded())
    log::warn("checkpoint.async has no effect: this MPI allows calls of one thread only (no MPI_THREAD_MULTIPLE)");
}

/// True if the nodes' disks get copies now: with every checkpoint, or every checkpoint.local_every_updates.
bool Saver::local_due(std::int64_t completed, bool shared) const {
  if (local_ == nullptr) return false;
  const auto every = config_.checkpoint.local_every_updates;
  return every > 0 ? completed % every == 0 : shared;
}

void Saver::after_update(std::int64_t completed, bool trusted) {
  interval_.add_update(since_.seconds(), background_.busy() && !background_.finished());
  if (background_.finished()) tell(background_.outcome(), Tell::all);
  const bool shared = interval_.due(completed) || put_off_.shared;
  const bool local = local_due(completed, shared) || put_off_.local;
  put_off_ = trusted ? Job{} : Job{completed, shared, local};
  if (trusted && (shared || local)) run({completed, shared, local});
  since_.restart();
}

bool Saver::run(const Job& job) {
  const Clock clock;
  settle();
  if (const double waited_s = clock.seconds(); waited_s > kNoticeable_s)
    log::warn(
        fmt::format("the training waited after {} updates, because the checkpoint before was still being written: "
                    "raise checkpoint.every_updates",
                    job.update));
  if (job.shared && job.update == saved_) return true;
  begin(job);
  if (!background_.threaded()) {
    settle();
    if (job.shared && saved_ != job.update) return false;
  }
  if (job.shared) interval_.add_save(comm_, job.update, clock.seconds(), background_.threaded() ? writing_s_ : 0);
  return true;
}

void Saver::finish(std::int64_t completed) {
  if (collect(Tell::success)) ++failures_;  // tries again now
  for (std::size_t i = 0; completed != saved_; ++i) {
    begin({completed, true, local_due(completed, true)});
    const auto failure = collect(Tell::success);
    if (!failure) return;
    ++failures_;
    if (i == std::size(kFinalPauses)) give_up(*failure);
    log::warn(fmt::format("the last checkpoint, after {} updates, cannot be written: {}; next try in {} s", completed,
                          failure->what(), kFinalPauses[i].count()));
    std::this_thread::sleep_for(kFinalPauses[i]);
  }
}

/// Training stands still here: takes state and values as they are now. Then starts to write them.
void Saver::begin(const Job& job) {
  const auto timer = phases_.time(train::Phase::checkpoint);
  traffic_.close(TrafficLedger::Use::update);
  job_ = job;
  job_.best = std::exchange(best_text_, "");
  told_ = false;
  auto slabs = learner_.slabs();
  if (background_.threaded()) {
    snapshot_.take(slabs);
    slabs = snapshot_.slabs();
  }
  background_.start([this, job = job_, slabs = std::move(slabs),
                     now = state(job.update)](const comm::Communicator& comm) { write(comm, job, slabs, now); });
  traffic_.close(TrafficLedger::Use::checkpoint);
}

/// Runs in the writing thread. The nodes' disks come first, because they are faster.
void Saver::write(const comm::Communicator& comm, const Job& job, const std::vector<checkpoint::Slab>& slabs,
                  const checkpoint::State& state) {
  if (job.local) {
    try {
      local_->save(comm, slabs, state);
    } catch (const Error& e) {
      if (!is_survivable(e)) throw;
      local_failure_ = e;
    }
  }
  if (!job.shared) return;
  const auto& run_dir = config_.log.run_dir;
  written_ = checkpoint::save(comm, run_dir, slabs, state);
  // Deletes no older checkpoint before this one has been read back against its manifest.
  checkpoint::verify_or_discard(comm, written_);
  if (!job.best.empty()) best_ = job.update;
  if (!comm.is_root()) return;
  if (!job.best.empty()) write_best(run_dir, job.best);
  checkpoint::retain(run_dir, config_.checkpoint.keep_last, config_.checkpoint.keep_every, best_);
}

/// Waits for the save in progress. Returns the failure of the file system, if any. Throws all other errors.
std::optional<Error> Saver::collect(Tell what) {
  if (!background_.busy()) return std::nullopt;
  const auto timer = phases_.time(train::Phase::checkpoint);
  traffic_.close(TrafficLedger::Use::update);
  const auto outcome = background_.wait();
  traffic_.close(TrafficLedger::Use::checkpoint);
  if (outcome.error && !is_survivable(*outcome.error)) throw Error(*outcome.error);
  tell(outcome, what);
  local_failure_.reset();
  writing_s_ = outcome.seconds;
  if (job_.shared && !outcome.error) {
    saved_ = job_.update;
    failures_ = 0;
  }
  return outcome.error;
}

/// Logs the outcome once, as soon as the root sees it. Ranks act on it once all of them have collected it.
void Saver::tell(const checkpoint::Background::Outcome& outcome, Tell what) {
  if (std::exchange(told_, true)) return;
  if (local_failure_)
    log::warn(fmt::format("no copy in checkpoint.local_dir after {} updates: {}; the run goes on", job_.update,
                          local_failure_->what()));
  if (!job_.shared) return;
  if (!outcome.error) {
    log::info("checkpoint " + written_);
  } else if (what == Tell::all && failures_ < config_.checkpoint.max_failures) {  // else the caller reports it
    log::warn(fmt::format(
        "no checkpoint after {} updates: {}; {}. The run goes on and tries again at the next interval; {} ({} in a row "
        "failed, checkpoint.max_failures = {})",
        job_.update, outcome.error->what(), remedy_of(*outcome.error),
        fallback().empty() ? "until then it has no checkpoint" : fallback() + " is kept", failures_ + 1,
        config_.checkpoint.max_failures));
  }
}

/// The last checkpoint, unless it was lost too. The root logs this, so only the root looks.
std::string Saver::fallback() const {
  const auto look = [&] { checkpoint::resolve(config_.log.run_dir); };
  if (saved_ < 0 || (comm_.is_root() && !checkpoint::problem_of(look).empty())) return "";
  return fmt::format("the checkpoint after {} updates", saved_);
}

void Saver::give_up(const Error& failure) const {
  throw Error(ExitCode::file,
              fmt::format("{} checkpoints in a row could not be written: {}", failures_, failure.what()),
              fmt::format("{}; the next start {}", remedy_of(failure),
                          !fallback().empty() ? "goes on from " + fallback() + ", which is whole"
                          : saved_ < 0        ? "begins anew"
                                              : "finds no checkpoint"))
      .at(failure.where())
      .as_agreed();
}

checkpoint::State Saver::state(std::int64_t completed) const {
  checkpoint::State state;
  state.update = completed;
  state.seed = config_.data.seed;
  state.global_batch = config_.data.global_batch;
  state.ranks = comm_.size();
  state.config_toml = config::to_toml(config_);
  learner_.save(state);
  describe_(state);
  return state;
}

}  // namespace seer::run
