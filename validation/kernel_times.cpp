// SPDX-License-Identifier: Apache-2.0
// A tool for Kokkos Tools' interface (KOKKOS_PROFILE_LIBRARY): time of every kernel and region inside the phases of
// updates, exclusive of what is nested in it, as a table at the end. Of rank 0; rows named after a phase are what its
// kernels and products leave. Built and used by validation/profile.sh.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

using Time = std::chrono::steady_clock::time_point;

struct Row {
  double seconds = 0;
  std::uint64_t calls = 0;
};
struct Open {
  std::string name;
  Time began;
  double inner_s = 0;
};

std::map<std::string, Row> rows;
std::vector<Open> open_regions;

void begin(const char* name) {
  open_regions.push_back({name, std::chrono::steady_clock::now()});
}

void end() {
  if (open_regions.empty()) return;
  const auto region = std::move(open_regions.back());
  open_regions.pop_back();
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - region.began).count();
  auto& row = rows[region.name];
  row.seconds += s - region.inner_s;
  ++row.calls;
  if (!open_regions.empty()) open_regions.back().inner_s += s;
}

/// Kernels outside of phases (set-up, planning) are nobody's.
void begin_kernel(const char* name) {
  if (!open_regions.empty()) begin(name);
}
void end_kernel(bool told) {
  if (told) end();
}

}  // namespace

extern "C" {

void kokkosp_push_profile_region(const char* name) {
  begin(name);
}
void kokkosp_pop_profile_region() {
  end();
}
void kokkosp_begin_parallel_for(const char* name, std::uint32_t, std::uint64_t* id) {
  *id = open_regions.empty() ? 0 : 1;
  begin_kernel(name);
}
void kokkosp_end_parallel_for(std::uint64_t id) {
  end_kernel(id != 0);
}

void kokkosp_finalize_library() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank != nullptr && std::string(rank) != "0") return;
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.second.seconds > b.second.seconds; });
  double total = 0;
  for (const auto& [name, row] : sorted) total += row.seconds;
  std::printf("| what | calls | s | share |\n|---|---|---|---|\n");
  for (const auto& [name, row] : sorted) {
    std::printf("| %s | %llu | %.3f | %.1f %% |\n", name.c_str(), static_cast<unsigned long long>(row.calls),
                row.seconds, 100 * row.seconds / total);
  }
}
}
