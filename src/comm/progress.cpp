// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <deque>
#include <mutex>
#include <numeric>
#include <set>

#include "record.hpp"

namespace seer::comm {
namespace {

std::atomic<std::uint64_t> count{0};
std::atomic<std::int64_t> update{-1};
std::atomic<const char*> phase{""};
std::atomic<Stage> stage{Stage::set_up};

constexpr std::size_t kSlots = 32;

struct Read {
  const std::string* path = nullptr;  ///< null: free
  std::int64_t since_ns = 0;
};
struct State {
  std::mutex mutex;                 ///< held for a few loads and stores only, never while something waits
  std::array<Read, 64> reads;       ///< running ones, one per thread
  std::deque<Trace> traces;         ///< a deque, because addresses must stay
  std::set<std::string> names;      ///< of communicators
  std::array<Passed, kSlots> ring;  ///< by ticket
  std::uint64_t tickets = 0;        ///< of collectives that were entered
};
State& state() {
  static auto* const s = new State;  // never destroyed: threads may look until the process ends
  return *s;
}

std::vector<int> world_ranks(MPI_Comm comm) {
  int size = 0;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  std::vector<int> here(static_cast<std::size_t>(size)), out(here.size());
  std::iota(here.begin(), here.end(), 0);
  MPI_Group group = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
  check(MPI_Comm_group(comm, &group), "MPI_Comm_group");
  check(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  check(MPI_Group_translate_ranks(group, size, here.data(), world, out.data()), "MPI_Group_translate_ranks");
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return out;
}

}  // namespace

void tell_progress() {
  ++count;
}

void tell_doing(Doing doing) {
  phase = doing.phase;
  stage = doing.stage;
  tell_progress();
}

Doing doing_now() {
  return {phase, stage};
}

void tell_update(std::int64_t number) {
  update = number;
  tell_doing({"between phases", Stage::update});
}

std::uint64_t progress_count() {
  return count;
}

std::int64_t told_update() {
  return update;
}

std::string doing_text() {
  const std::string what = doing_now().phase;
  if (told_update() >= 0) return fmt::format("; in update {}{}{}", told_update(), what.empty() ? "" : ", ", what);
  return what.empty() ? "" : "; during " + what;
}

Reading::Reading(const std::string& path) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  const auto free = std::ranges::find(s.reads, nullptr, &Read::path);
  place_ = static_cast<std::size_t>(free - s.reads.begin());
  if (free != s.reads.end()) *free = {&path, steady_ns()};
}

Reading::~Reading() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  if (place_ < s.reads.size()) s.reads[place_].path = nullptr;
  tell_progress();
}

std::string reading_now() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  const Read* oldest = nullptr;
  for (const auto& read : s.reads)
    if (read.path != nullptr && (oldest == nullptr || read.since_ns < oldest->since_ns)) oldest = &read;
  return oldest == nullptr ? "" : *oldest->path;
}

std::int64_t steady_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

Trace* trace_of(MPI_Comm comm) {
  auto members = world_ranks(comm);
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  int number = 0;
  for (auto& trace : s.traces) {
    if (trace.members != members) continue;
    ++number;
    if (trace.in_use) continue;
    trace.in_use = true;
    return &trace;
  }
  auto& made = s.traces.emplace_back();
  made.members = std::move(members);
  made.number = number;
  return &made;
}

void rename(Trace* trace, const std::string& name) {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  trace->name = s.names.insert(name).first->c_str();
}

void release(Trace* trace) {
  const std::lock_guard lock(state().mutex);
  trace->in_use = false;
}

OpenMark open_mark(Trace* trace, const char* kind, std::size_t bytes) {
  if (trace == nullptr) return {};
  tell_progress();
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  trace->kind = kind;
  trace->bytes = static_cast<std::int64_t>(bytes);
  trace->entered_ns = steady_ns();
  const OpenMark mark{trace, ++s.tickets, ++trace->entered};
  s.ring[mark.ticket % kSlots] = {trace->name, kind, mark.sequence, trace->bytes, trace->entered_ns};
  return mark;
}

void close_mark(const OpenMark& mark) {
  if (mark.trace == nullptr) return;
  tell_progress();
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  // Never decrease: a later collective, over MPI, may have been left before this one on the device was seen to end.
  mark.trace->left = std::max<std::int64_t>(mark.trace->left, mark.sequence);
  if (s.tickets - mark.ticket < kSlots) s.ring[mark.ticket % kSlots].left_ns = steady_ns();
}

std::vector<Passed> last_collectives() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  std::vector<Passed> out;
  const auto before = s.tickets - std::min<std::uint64_t>(s.tickets, kSlots);
  for (auto ticket = before + 1; ticket <= s.tickets; ++ticket) out.push_back(s.ring[ticket % kSlots]);
  return out;
}

std::vector<const Trace*> traces_in_use() {
  auto& s = state();
  const std::lock_guard lock(s.mutex);
  std::vector<const Trace*> out;
  for (const auto& trace : s.traces)
    if (trace.in_use && trace.entered > 0) out.push_back(&trace);
  return out;
}

}  // namespace seer::comm
