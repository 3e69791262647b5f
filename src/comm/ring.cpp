// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/ring.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <mutex>
#include <numeric>
#include <set>

#include "record.hpp"
#include "seer/comm/progress.hpp"

namespace seer::comm {
namespace {

constexpr std::size_t kSlots = 32;
constexpr auto kRelaxed = std::memory_order_relaxed;

struct Slot {
  std::atomic<std::uint64_t> ticket{0};  ///< 0: empty or being written
  std::atomic<const Trace*> trace{nullptr};
  std::atomic<const char*> kind{""};
  std::atomic<std::int64_t> sequence{0}, bytes{0}, entered_ns{0}, left_ns{0};
};
std::array<Slot, kSlots> slots;
std::atomic<std::uint64_t> tickets{0};

/// Communicators are made and renamed in set-up. Collectives do not take this lock.
struct Registry {
  std::mutex mutex;
  std::deque<Trace> traces;  // a deque, because addresses must stay
  std::set<std::string> names;
};
Registry& registry() {
  static auto* const r = new Registry;  // never destroyed: threads may look until the process ends
  return *r;
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

std::int64_t steady_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

Trace* trace_of(MPI_Comm comm) {
  auto members = world_ranks(comm);
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  int number = 0;
  for (auto& trace : r.traces) {
    if (trace.members != members) continue;
    ++number;
    if (trace.in_use) continue;
    trace.in_use = true;
    return &trace;
  }
  auto& made = r.traces.emplace_back();
  made.members = std::move(members);
  made.number = number;
  return &made;
}

void rename(Trace* trace, const std::string& name) {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  trace->name.store(r.names.insert(name).first->c_str(), kRelaxed);
}

void release(Trace* trace) {
  const std::lock_guard lock(registry().mutex);
  trace->in_use = false;
}

OpenMark open_mark(Trace* trace, const char* kind, std::size_t bytes) {
  if (trace == nullptr) return {};
  const auto now = steady_ns();
  const auto sequence = trace->entered.load(kRelaxed) + 1;
  trace->kind.store(kind, kRelaxed);
  trace->bytes.store(static_cast<std::int64_t>(bytes), kRelaxed);
  trace->entered_ns.store(now, kRelaxed);
  trace->entered.store(sequence, std::memory_order_release);
  const auto ticket = tickets.fetch_add(1, kRelaxed) + 1;
  auto& slot = slots[ticket % kSlots];
  slot.ticket.store(0, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);
  slot.trace.store(trace, kRelaxed);
  slot.kind.store(kind, kRelaxed);
  slot.sequence.store(sequence, kRelaxed);
  slot.bytes.store(static_cast<std::int64_t>(bytes), kRelaxed);
  slot.entered_ns.store(now, kRelaxed);
  slot.left_ns.store(0, kRelaxed);
  slot.ticket.store(ticket, std::memory_order_release);
  tell_progress();
  return {trace, ticket, sequence};
}

void close_mark(const OpenMark& mark) {
  if (mark.trace == nullptr) return;
  // Never decrease: a later collective, over MPI, may have been left before this one on the device was seen to end.
  auto left = mark.trace->left.load(kRelaxed);
  while (left < mark.sequence &&
         !mark.trace->left.compare_exchange_weak(left, mark.sequence, std::memory_order_release, kRelaxed)) {
  }
  auto& slot = slots[mark.ticket % kSlots];
  if (slot.ticket.load(kRelaxed) == mark.ticket) slot.left_ns.store(steady_ns(), kRelaxed);
  tell_progress();
}

std::vector<Passed> last_collectives() {
  std::vector<std::pair<std::uint64_t, Passed>> found;
  for (auto& slot : slots) {
    const auto before = slot.ticket.load(std::memory_order_acquire);
    if (before == 0) continue;
    const Passed passed{slot.trace.load(kRelaxed)->name.load(kRelaxed),
                        slot.kind.load(kRelaxed),
                        slot.sequence.load(kRelaxed),
                        slot.bytes.load(kRelaxed),
                        slot.entered_ns.load(kRelaxed),
                        slot.left_ns.load(kRelaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (slot.ticket.load(kRelaxed) == before) found.emplace_back(before, passed);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Passed> out;
  for (const auto& [ticket, passed] : found) out.push_back(passed);
  return out;
}

std::vector<const Trace*> traces_in_use() {
  auto& r = registry();
  const std::lock_guard lock(r.mutex);
  std::vector<const Trace*> out;
  for (const auto& trace : r.traces) {
    if (trace.in_use && trace.entered.load(kRelaxed) > 0) out.push_back(&trace);
  }
  return out;
}

}  // namespace seer::comm
