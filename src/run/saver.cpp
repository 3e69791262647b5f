// SPDX-License-Identifier: Apache-2.0
#include "seer/run/saver.hpp"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/nodes.hpp"

namespace seer::run {
namespace {

/// Pauses between the attempts of the last save: long enough for a file server to come back, short enough for a job
/// that must stop soon.
constexpr std::chrono::seconds kFinalPauses[] = {std::chrono::seconds(1), std::chrono::seconds(5)};
/// A warning follows if a save waits longer than this for the one before it.
constexpr double kNoticeable_s = 0.5;

/// True for a failure of the file system that all ranks know; anything else is a defect or a lost rank.
bool is_survivable(const Error& e) {
  return e.agreed() && e.code() == ExitCode::file;
}

std::string remedy_of(const Error& e) {
  return e.remedy().empty() ? "is the file system of log.run_dir there, writable and not failing?" : e.remedy();
}

int nodes_of(const comm::Communicator& comm, const checkpoint::LocalSets* local) {
  return local != nullptr ? local->nodes().count() : comm::Nodes(comm).count();
}

}  // namespace

Saver::Saver(const config::Config& config, const comm::Communicator& comm, train::Phases& phases,
             TrafficLedger& traffic, train::Learner& learner, const checkpoint::LocalSets* local, Describe describe)
    : config_(config),
      comm_(comm),
      phases_(phases),
      traffic_(traffic),
      learner_(learner),
      local_(local),
      describe_(std::move(describe)),
      interval_(config.checkpoint, nodes_of(comm, local), 0),
      background_(comm, config.checkpoint.async) {
  if (config.checkpoint.async && !background_.threaded()) {
    log::warn("checkpoint.async has no effect: this MPI lets one thread call it (no MPI_THREAD_MULTIPLE)");
  }
}

void Saver::resumed(std::int64_t update) {
  saved_ = update;
  interval_.start_at(update);
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
  put_off_ = {};
  if (!trusted) {
    put_off_ = {completed, shared, local};
  } else if (shared || local) {
    run({completed, shared, local});
  }
  since_.restart();
}

bool Saver::save(std::int64_t completed) {
  const bool saved = run({completed, true, local_due(completed, true)});
  since_.restart();
  return saved;
}

bool Saver::run(const Job& job) {
  const Clock clock;
  settle();
  if (const double waited_s = clock.seconds(); waited_s > kNoticeable_s) {
    log::warn(
        fmt::format("a checkpoint was still being written when the next one was due, after {} updates: the "
                    "training waited for it; lengthen checkpoint.every_updates",
                    job.update));
  }
  if (job.shared && job.update == saved_) return true;
  begin(job);
  if (!background_.threaded()) {
    settle();
    if (job.shared && saved_ != job.update) return false;
  }
  if (job.shared) interval_.add_save(comm_, job.update, clock.seconds(), background_.threaded() ? writing_s_ : 0);
  return true;
}

void Saver::settle() {
  const auto failure = collect(Tell::all);
  if (failure && ++failures_ > config_.checkpoint.max_failures) give_up(*failure);
}

void Saver::finish(std::int64_t completed) {
  if (collect(Tell::success)) ++failures_;  // attempt() tries again now
  auto failure = attempt(completed);
  for (const auto pause : kFinalPauses) {
    if (!failure) return;
    ++failures_;
    log::warn(fmt::format("the last checkpoint, after {} updates, cannot be written: {}; tried again in {} s",
                          completed, failure->what(), pause.count()));
    std::this_thread::sleep_for(pause);
    failure = attempt(completed);
  }
  if (!failure) return;
  ++failures_;
  give_up(*failure);
}

/// Returns nothing if these updates are saved now, else the failure of the file system. Throws all other errors.
std::optional<Error> Saver::attempt(std::int64_t completed) {
  if (completed == saved_) return std::nullopt;
  begin({completed, true, local_due(completed, true)});
  return collect(Tell::success);
}

/// Training stands still here: takes state and values as they are now. Then starts to write them.
void Saver::begin(const Job& job) {
  const auto timer = phases_.time(train::Phase::checkpoint);
  traffic_.close(TrafficLedger::Use::update);
  job_ = job;
  told_ = false;
  auto slabs = learner_.slabs();
  if (background_.threaded()) {
    snapshot_.take(slabs);
    slabs = snapshot_.slabs();
  }
  background_.start([this, job, slabs = std::move(slabs), now = state(job.update)](const comm::Communicator& comm) {
    write(comm, job, slabs, now);
  });
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
  if (comm.is_root()) checkpoint::retain(run_dir, config_.checkpoint.keep_last, config_.checkpoint.keep_every);
}

/// Waits for the save in progress. Returns nothing if it succeeded, else the failure of the file system. Throws all
/// other errors.
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
  if (local_failure_) {
    log::warn(fmt::format("no copy in checkpoint.local_dir after {} updates: {}; the run goes on", job_.update,
                          local_failure_->what()));
  }
  if (!job_.shared) return;
  if (!outcome.error) {
    log::info("checkpoint " + written_);
  } else if (what == Tell::all && failures_ < config_.checkpoint.max_failures) {  // else the caller reports it
    log::warn(fmt::format(
        "no checkpoint after {} updates: {}; {}. The run goes on, {}, and tries again at the next "
        "interval ({} in a row failed, checkpoint.max_failures = {})",
        job_.update, outcome.error->what(), remedy_of(*outcome.error),
        fallback().empty() ? "without any" : fallback() + " is kept", failures_ + 1, config_.checkpoint.max_failures));
  }
}

/// The last checkpoint, unless it was lost too. The root logs this, so only the root looks.
std::string Saver::fallback() const {
  if (saved_ < 0) return "";
  try {
    if (comm_.is_root()) checkpoint::resolve(config_.log.run_dir);
  } catch (const Error&) {
    return "";
  }
  return fmt::format("that after {} updates", saved_);
}

void Saver::give_up(const Error& failure) const {
  throw Error(ExitCode::file,
              fmt::format("{} checkpoints in a row could not be written: {}", failures_, failure.what()),
              fmt::format("{}; {} what the next start goes on from", remedy_of(failure),
                          !fallback().empty() ? fallback() + " is whole, and"
                          : saved_ < 0        ? "the beginning is"
                                              : "no checkpoint is left that would be"))
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
