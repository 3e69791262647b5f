// SPDX-License-Identifier: Apache-2.0
#include "seer/train/saver.hpp"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::train {
namespace {

/// Between the attempts of the last save: long enough for a file server to come back, short enough for what is left of
/// a job that was told to stop.
constexpr std::chrono::seconds kFinalPauses[] = {std::chrono::seconds(1), std::chrono::seconds(5)};

/// What the file system did, and all ranks know; anything else is a defect or a lost rank.
bool is_survivable(const Error& e) {
  return e.agreed() && e.code() == ExitCode::file;
}

std::string remedy_of(const Error& e) {
  return e.remedy().empty() ? "is the file system of log.run_dir there, writable and not failing?" : e.remedy();
}

}  // namespace

Saver::Saver(const config::Config& config, const comm::Communicator& comm, Phases& phases, TrafficLedger& traffic,
             Learner& learner, Describe describe)
    : config_(config),
      comm_(comm),
      phases_(phases),
      traffic_(traffic),
      learner_(learner),
      describe_(std::move(describe)) {}

void Saver::after_update(std::int64_t completed) {
  if (completed % config_.checkpoint.every_updates == 0) save(completed);
}

bool Saver::save(std::int64_t completed) {
  const auto failure = attempt(completed);
  if (!failure) {
    failures_ = 0;
    return true;
  }
  if (++failures_ > config_.checkpoint.max_failures) give_up(*failure);
  log::warn(
      fmt::format("no checkpoint after {} updates: {}; {}. The run goes on, {}, and tries again at the next "
                  "interval ({} in a row failed, checkpoint.max_failures = {})",
                  completed, failure->what(), remedy_of(*failure),
                  saved_ < 0 ? "without any so far" : fmt::format("that after {} updates is kept", saved_), failures_,
                  config_.checkpoint.max_failures));
  return false;
}

void Saver::finish(std::int64_t completed) {
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

/// Nothing where these updates are saved now, else what the file system did; all else is thrown.
std::optional<Error> Saver::attempt(std::int64_t completed) {
  if (completed == saved_) return std::nullopt;
  const auto timer = phases_.time(Phase::checkpoint);
  traffic_.close(TrafficLedger::Use::update);
  std::optional<Error> failure;
  try {
    write_and_verify(completed);
  } catch (const Error& e) {
    if (!is_survivable(e)) throw;
    failure = e;
  }
  traffic_.close(TrafficLedger::Use::checkpoint);
  return failure;
}

void Saver::give_up(const Error& failure) const {
  throw Error(ExitCode::file,
              fmt::format("{} checkpoints in a row could not be written: {}", failures_, failure.what()),
              fmt::format("{}; {} what the next start goes on from", remedy_of(failure),
                          saved_ < 0 ? "the beginning is" : fmt::format("that after {} updates is whole, and", saved_)))
      .at(failure.where())
      .as_agreed();
}

void Saver::write_and_verify(std::int64_t completed) {
  const auto& run_dir = config_.log.run_dir;
  const auto folder = checkpoint::save(comm_, run_dir, learner_.slabs(), state(completed));
  // Nothing older is deleted before this one has been read back against its manifest.
  checkpoint::verify_or_discard(comm_, folder);
  saved_ = completed;
  if (comm_.is_root()) checkpoint::retain(run_dir, config_.checkpoint.keep_last, config_.checkpoint.keep_every);
  log::info("checkpoint " + folder);
}

checkpoint::State Saver::state(std::int64_t completed) const {
  checkpoint::State state;
  state.update = completed;
  state.seed = config_.data.seed;
  state.global_batch = config_.data.global_batch;
  state.ranks = comm_.size();
  state.config_toml = config::to_toml(config_);
  learner_.save_queue(state);
  learner_.save_loss_scale(state);
  describe_(state);
  return state;
}

}  // namespace seer::train
