// SPDX-License-Identifier: Apache-2.0
// Checks how many threads a rank may have, before any is created: OpenMP's library accepts every number, and ends the
// process by itself if the system refuses it a thread.
#include <fmt/format.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <future>
#include <string_view>
#include <thread>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/base/thread.hpp"
#include "seer/device/session.hpp"

namespace seer::device {
namespace {

constexpr int kThreadsPerCore = 4, kAlways = 64;  // more per core never helps; even a small machine allows kAlways

int cores() {
  return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
}

/// Starts `count` threads that are alive at the same time. Throws Error(device) naming the first that the system
/// refuses.
void try_threads(int count) {
  struct Waiting {
    std::promise<void> end;
    std::vector<std::thread> threads;
    ~Waiting() {
      end.set_value();
      for (auto& thread : threads) thread.join();
    }
  } waiting;
  const auto ended = waiting.end.get_future().share();
  for (int i = 1; i < count; ++i) {  // the first is the process's own
    waiting.threads.push_back(
        start_thread(fmt::format("thread {} of {} (OMP_NUM_THREADS)", i + 1, count), [ended] { ended.wait(); }));
  }
}

}  // namespace

int most_threads() {
  return std::max(kAlways, kThreadsPerCore * cores());
}

int thread_count(const char* name, const char* value, int most) {
  std::string_view text = value != nullptr ? value : "";
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  if (text.empty()) return 0;
  int count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view rest(end, static_cast<std::size_t>(text.data() + text.size() - end));
  // OpenMP accepts a list with one number per level of nesting: "4,2".
  const bool number = error == std::errc() && rest.find_first_not_of("0123456789, \t") == std::string_view::npos;
  if (number && count >= 1 && count <= most) return count;
  throw Error(
      ExitCode::input,
      fmt::format("{} is \"{}\"; allowed: 1 to {} on this node, which has {} cores", name, value, most, cores()),
      "set it to the number of cores per rank, or unset it (one thread per rank)");
}

std::string require_threads() {
  const int threads = std::max(1, thread_count("OMP_NUM_THREADS", std::getenv("OMP_NUM_THREADS"), most_threads()));
  thread_count("KOKKOS_NUM_THREADS", std::getenv("KOKKOS_NUM_THREADS"), most_threads());
  try_threads(threads);
  // Libraries wait for every thread of a team, so they would wait forever for threads that OpenMP does not create.
  const bool teams = omp_get_max_active_levels() > 0;
  const char* const limit = teams ? "OMP_THREAD_LIMIT" : "OMP_MAX_ACTIVE_LEVELS";
  if (const int most = teams ? omp_get_thread_limit() : 1; most < threads) {
    throw Error(ExitCode::input, fmt::format("OMP_NUM_THREADS is {}, but {} allows only {}", threads, limit, most),
                fmt::format("unset {}, or set OMP_NUM_THREADS to {}", limit, most));
  }
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof mine, &mine) != 0 || threads <= CPU_COUNT(&mine)) return "";
  return fmt::format(
      "OMP_NUM_THREADS is {}, but a rank has only {} cores, so its threads wait for each other; set it to {}, or give "
      "each rank more cores (mpirun --map-by slot:PE={} or --bind-to none, srun --cpus-per-task={})",
      threads, CPU_COUNT(&mine), CPU_COUNT(&mine), threads, threads);
}

}  // namespace seer::device
