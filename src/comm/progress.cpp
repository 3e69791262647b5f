// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/progress.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <mutex>

#include "seer/comm/ring.hpp"

namespace seer::comm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
std::atomic<std::uint64_t> count{0};
std::atomic<std::int64_t> update{-1};
std::atomic<const char*> phase{""};
std::atomic<Stage> stage{Stage::set_up};

/// The running reads, one per thread. A read takes far longer than this lock.
struct Reads {
  struct Place {
    const std::string* path = nullptr;  ///< null: free
    std::int64_t since_ns = 0;
  };
  std::mutex mutex;
  std::array<Place, 64> places;
};
Reads& reads() {
  static auto* const r = new Reads;  // never destroyed, like the registry of communicators
  return *r;
}

}  // namespace

void tell_progress() {
  count.fetch_add(1, kRelaxed);
}

void tell_doing(Doing doing) {
  phase.store(doing.phase, kRelaxed);
  stage.store(doing.stage, kRelaxed);
  tell_progress();
}

Doing doing_now() {
  return {phase.load(kRelaxed), stage.load(kRelaxed)};
}

void tell_update(std::int64_t number) {
  update.store(number, kRelaxed);
  tell_doing({"between phases", Stage::update});
}

std::uint64_t progress_count() {
  return count.load(kRelaxed);
}

std::int64_t told_update() {
  return update.load(kRelaxed);
}

std::string doing_text() {
  const std::string what = doing_now().phase;
  if (told_update() >= 0) return fmt::format("; in update {}{}{}", told_update(), what.empty() ? "" : ", ", what);
  return what.empty() ? "" : "; during " + what;
}

Reading::Reading(const std::string& path) {
  auto& r = reads();
  const std::lock_guard lock(r.mutex);
  for (place_ = 0; place_ < r.places.size(); ++place_) {
    if (r.places[place_].path != nullptr) continue;
    r.places[place_] = {&path, steady_ns()};
    return;
  }
}

Reading::~Reading() {
  auto& r = reads();
  const std::lock_guard lock(r.mutex);
  if (place_ < r.places.size()) r.places[place_].path = nullptr;
  tell_progress();
}

std::string reading_now() {
  auto& r = reads();
  const std::lock_guard lock(r.mutex);
  const Reads::Place* oldest = nullptr;
  for (const auto& place : r.places) {
    if (place.path != nullptr && (oldest == nullptr || place.since_ns < oldest->since_ns)) oldest = &place;
  }
  return oldest == nullptr ? "" : *oldest->path;
}

}  // namespace seer::comm
