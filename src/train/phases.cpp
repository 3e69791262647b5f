// SPDX-License-Identifier: Apache-2.0
#include "seer/train/phases.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <numeric>

namespace seer::train {

const char* name_of(Phase phase) {
  constexpr std::array<const char*, kPhases> names = {"data wait",  "forward",    "bn sync",   "loss",
                                                      "backward",   "reduce",     "optimizer", "gather",
                                                      "checkpoint", "evaluation", "other"};
  return names[index(phase)];
}

Phases::Timer::Timer(Phases& owner, Phase phase)
    : owner_(owner),
      phase_(phase),
      region_(owner.planned_ != nullptr ? nullptr : name_of(phase)),
      began_ms_(owner.now_ms()),
      outer_(owner.running_),
      before_(comm::doing_now()),
      exceptions_(std::uncaught_exceptions()) {
  owner.enter(this);
  const bool long_pause = phase == Phase::checkpoint || phase == Phase::evaluation;
  if (owner.planned_ == nullptr)
    comm::tell_doing({name_of(phase), long_pause ? comm::Stage::checkpoint : before_.stage});
}

Phases::Timer::~Timer() {
  const double ms = owner_.now_ms() - began_ms_;
  if (owner_.queue_clock_ == nullptr) owner_.current_.ms[index(phase_)] += ms - inner_ms_;
  owner_.enter(outer_);
  if (outer_ != nullptr) outer_->inner_ms_ += ms;
  // While an error propagates, the phase stays as it was, for the error's message.
  if (owner_.planned_ == nullptr && std::uncaught_exceptions() == exceptions_) comm::tell_doing(before_);
}

void Phases::measure_on(const device::Queue& queue) {
  queue_clock_.reset();
  if (queue.space != device::Space::device) return;
  queue_clock_ = std::make_unique<device::QueueClock>(queue);
  enter(running_);
}

void Phases::read_queue() {
  if (queue_clock_ == nullptr) return;
  queue_clock_->mark(static_cast<int>(Phase::other));
  queue_clock_->read([this](int label, double ms) { current_.ms[static_cast<std::size_t>(label)] += ms; });
}

void Phases::end_update() {
  read_queue();
  current_.wall_ms = now_ms() - update_began_ms_;
  const double claimed = std::accumulate(current_.ms.begin(), current_.ms.end(), 0.0);
  current_.ms[index(Phase::other)] += std::max(0.0, current_.wall_ms - claimed);
  for (auto* sum : {&interval_, &total_}) {
    for (std::size_t i = 0; i < kPhases; ++i) sum->ms[i] += current_.ms[i];
    sum->wall_ms += current_.wall_ms;
    sum->hidden_ms += current_.hidden_ms;
    ++sum->updates;
  }
  begin_update();
}

PhaseSummary reduce(const PhaseTimes& times, const comm::Communicator& comm) {
  PhaseSummary summary;
  summary.updates = times.updates;
  summary.ranks = comm.size();
  for (std::size_t i = 0; i < kPhases; ++i) summary.mean_ms[i] = times.per_update_ms(static_cast<Phase>(i));
  summary.mean_ms[kPhases] = times.step_ms();
  summary.min_ms = summary.max_ms = summary.mean_ms;
  comm.all_reduce(std::span<double>(summary.min_ms), comm::Op::min);
  comm.all_reduce(std::span<double>(summary.mean_ms), comm::Op::sum);
  comm.all_reduce(std::span<double>(summary.max_ms), comm::Op::max);
  for (auto& ms : summary.mean_ms) ms /= static_cast<double>(comm.size());
  summary.hidden_ms = comm.all_reduce(times.hidden_per_update_ms(), comm::Op::sum) / comm.size();
  return summary;
}

std::string to_table(const PhaseSummary& s) {
  auto text =
      fmt::format("time per update, mean of {} updates on {} rank{}\n", s.updates, s.ranks, s.ranks == 1 ? "" : "s");
  text += fmt::format("  {:<12}{:>10}{:>9}{:>14}{:>14}", "phase", "ms", "share", "fastest rank", "slowest rank");
  const double whole = s.mean_ms[kPhases];
  for (std::size_t i = 0; i <= kPhases; ++i) {
    if (i < kPhases && s.max_ms[i] == 0) continue;  // a phase that this run never had
    const double share = whole > 0 ? 100 * s.mean_ms[i] / whole : 0;
    text += fmt::format("\n  {:<12}{:>10.2f}{:>7.1f} %{:>14.2f}{:>14.2f}",
                        i < kPhases ? name_of(static_cast<Phase>(i)) : "update", s.mean_ms[i], share, s.min_ms[i],
                        s.max_ms[i]);
  }
  if (s.hidden_ms > 0) text += fmt::format("\n  communication hidden behind these: {:.2f} ms", s.hidden_ms);
  return text;
}

}  // namespace seer::train
