// SPDX-License-Identifier: Apache-2.0
// reduce() on a device: one pass over the activations, no atomics. A team is `side` threads wide along the wide row and
// `down` threads deep across rows. Each thread adds its rows in float over short runs, then in double. The team adds
// its threads' sums in order, and a second kernel adds the teams' sums in order. The division of work depends on the
// shape alone, so every run gives the same bits. Part of launch.hpp.
#pragma once

#include "launch_device.hpp"

namespace seer::kernels::launch {
namespace detail {

/// Division into teams: groups of segments x parts of a segment's rows x pieces of the wide row.
struct Deal {
  std::int64_t pieces = 1, side = 1, down = 1;  ///< teams per wide row; threads of a team along it and across rows
  std::int64_t parts = 1, rows = 1;             ///< teams per segment's rows; rows per team
  std::int64_t joined = 1, groups = 1;          ///< segments per team; number of such groups
  std::int64_t teams() const { return pieces * parts * groups; }
};
inline Deal deal(const Grid& grid, bool per_segment) {
  constexpr std::int64_t kSide = 64, kTeams = 1024, kMostParts = 512, kRowsOfThread = 64;
  const auto up = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  Deal d;
  d.pieces = up(grid.columns, kSide);
  d.side = up(grid.columns, d.pieces);
  d.down = std::clamp<std::int64_t>(grid.wide_rows, 1, kTeam / d.side);
  // Parts: enough teams to fill the device, but at least one row per thread, and few partial results.
  const std::int64_t most = up(grid.wide_rows, d.down), wanted = up(kTeams, d.pieces * grid.segments);
  d.parts = std::clamp<std::int64_t>(std::max(wanted, up(most, kRowsOfThread)), 1, std::min(most, kMostParts));
  d.rows = up(grid.wide_rows, d.parts);
  if (!per_segment && d.parts == 1)
    d.joined = std::clamp<std::int64_t>(d.pieces * grid.segments / kTeams, 1, up(kRowsOfThread, most));
  d.groups = up(grid.segments, d.joined);
  return d;
}

KOKKOS_FORCEINLINE_FUNCTION float term(const Terms& terms, int n) {
  return n == 0 ? terms.a : (n == 1 ? terms.b : terms.c);
}

/// Two teams share a multiprocessor: with 64 bytes a thread under way, twice what its share of the memory asks for.
using TeamPolicy = Kokkos::TeamPolicy<Device, Kokkos::LaunchBounds<kTeam, 2>>;
using TeamMember = TeamPolicy::member_type;

template <int N, int V, bool kStore, class Formula, class T>
struct DeviceReduce {
  static constexpr int kRun = 64;  // rows added in float
  /// Rows whose loads are under way together.
  static constexpr int kTogether = std::tuple_size_v<decltype(std::declval<Formula>().inputs())> == 1 ? 4 : 2;
  Formula formula;
  double* partial;  // [groups, parts, N, width]
  T* store;
  Grid grid;
  Deal cut;
  static constexpr int kSharedBytes = static_cast<int>(sizeof(double)) * N * kTeam * V;

  KOKKOS_FUNCTION void operator()(const TeamMember& team) const {
    const std::int64_t piece = team.league_rank() % cut.pieces, rest = team.league_rank() / cut.pieces;
    const std::int64_t part = rest % cut.parts, group = rest / cut.parts;
    const int side = static_cast<int>(cut.side), x = team.team_rank() % side, y = team.team_rank() / side;
    const std::int64_t column = piece * cut.side + x;
    // Sums in double are kept in shared memory, [N, threads, V]: registers are for loads under way.
    auto* const shared = static_cast<double*>(team.team_scratch(0).get_shmem(int{kSharedBytes}));
    double* const own = shared + team.team_rank() * V;
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int j = 0; j < V; ++j) own[n * kTeam * V + j] = 0;
    if (y < cut.down && column < grid.columns) {
      const std::int64_t first = group * cut.joined;
      const std::int64_t last = first + cut.joined < grid.segments ? first + cut.joined : grid.segments;
      for (std::int64_t segment = first; segment < last; ++segment) add(segment, part, y, column * V, own);
    }
    team.team_barrier();
    const int outputs = side * V;
    double* const out = partial + (group * cut.parts + part) * N * grid.width + piece * outputs;
    const std::int64_t left = grid.width - piece * outputs;
    for (int o = team.team_rank(); o < outputs && o < left; o += kTeam) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        double sum = 0;
        for (int row = 0; row < static_cast<int>(cut.down); ++row) sum += shared[n * kTeam * V + row * outputs + o];
        out[n * grid.width + o] = sum;
      }
    }
  }

 private:
  KOKKOS_FORCEINLINE_FUNCTION void add(std::int64_t segment, std::int64_t part, int y, std::int64_t k,
                                       double* own) const {
    Formula f = formula;
    ParameterStore<V> parameter_store;
    ParameterReader<V> parameters{segment, grid.c, static_cast<int>(k), parameter_store.values};
    f.fields(parameters);
    const std::int64_t end = (part + 1) * cut.rows < grid.wide_rows ? (part + 1) * cut.rows : grid.wide_rows;
    // Rows in which all V elements exist: all but perhaps the last.
    const std::int64_t whole = grid.elems - k >= V ? (grid.elems - k - V) / grid.width + 1 : 0;
    const std::int64_t full = end < whole ? end : whole;
    const std::int64_t base = segment * grid.elems + k;
    std::int64_t row = part * cut.rows + y;
    while (row < end) {
      float run[N][V] = {};
      int step = 0;
      for (; step < kRun && row + (kTogether - 1) * cut.down < full; step += kTogether, row += kTogether * cut.down)
        rows<kTogether>(f, base + row * grid.width, V, run);
      for (; step < kRun && row < end && (row + (kTogether - 1) * cut.down >= full); ++step, row += cut.down)
        rows<1>(f, base + row * grid.width, there(V, grid.elems - row * grid.width - k), run);
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int j = 0; j < V; ++j) own[n * kTeam * V + j] += static_cast<double>(run[n][j]);
    }
  }

  /// Adds `many` rows, the first of them from element i on, in order: loads first, then the arithmetic.
  template <int many>
  KOKKOS_FORCEINLINE_FUNCTION void rows(const Formula& f, std::int64_t i, int count, float (&run)[N][V]) const {
    if (count <= 0) return;
    Formula g[many];
    ElementStore<V> element_store[many];
#pragma unroll
    for (int u = 0; u < many; ++u) {
      g[u] = f;
      ElementReader<V> in{i + u * cut.down * grid.width, many > 1 ? V : count, element_store[u].values};
      g[u].fields(in);
    }
#pragma unroll
    for (int u = 0; u < many; ++u) {
      alignas(16) T kept[V];
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const Terms terms = g[u](0, j, j);
#pragma unroll
        for (int n = 0; n < N; ++n) run[n][j] += many > 1 || j < count ? term(terms, n) : 0.0F;
        if constexpr (kStore) kept[j] = terms.store;
      }
      if constexpr (kStore) write<V>(kept, store + i + u * cut.down * grid.width, many > 1 ? V : count);
    }
  }
};

/// Adds the teams' results in order, with 32 channels per team and eight threads per channel; then adds those in order.
template <int N, class Finish>
struct DeviceFinish {
  static constexpr int kLanes = 32, kThreads = kTeam / kLanes;
  Finish finish;
  const double* partial;
  std::int64_t items, width, c, copies, pieces;
  static constexpr int kSharedBytes = static_cast<int>(sizeof(double)) * kTeam * N;

  KOKKOS_FUNCTION void operator()(const TeamMember& team) const {
    const std::int64_t segment = team.league_rank() / pieces;
    const int lane = team.team_rank() % kLanes, thread = team.team_rank() / kLanes;
    const std::int64_t channel = team.league_rank() % pieces * kLanes + lane;
    double sums[N] = {};
    if (channel < c) {
      for (std::int64_t item = thread; item < items; item += kThreads) {
        const double* const part = partial + (segment * items + item) * N * width + channel;
#pragma unroll
        for (int n = 0; n < N; ++n)
          for (std::int64_t copy = 0; copy < copies; ++copy) sums[n] += part[n * width + copy * c];
      }
    }
    auto* const shared = static_cast<double*>(team.team_scratch(0).get_shmem(int{kSharedBytes}));
#pragma unroll
    for (int n = 0; n < N; ++n) shared[n * kTeam + team.team_rank()] = sums[n];
    team.team_barrier();
    if (thread != 0 || channel >= c) return;
#pragma unroll
    for (int n = 0; n < N; ++n)
      for (int other = 1; other < kThreads; ++other) sums[n] += shared[n * kTeam + other * kLanes + lane];
    finish(segment, channel, sums);
  }
};

template <class Body>
void teams(const Queue& queue, const char* label, std::int64_t count, int shared_bytes, const Body& body) {
  if (count == 0) return;
  TeamPolicy policy(device_of(queue), static_cast<int>(count), kTeam);
  policy.set_scratch_size(0, Kokkos::PerTeam(shared_bytes));
  Kokkos::parallel_for(name_of(label), policy, body);
}

template <int N, int V, bool kStore, class Formula, class Finish, class T>
void run_reduce(const Queue& queue, const char* label, Scratch& scratch, const Layout& layout, bool per_segment,
                const Formula& formula, const Finish& finish, T* out) {
  const Grid grid = grid_of(layout, V);
  const bool empty = layout.segments * layout.elems == 0;
  const Deal cut = empty ? Deal{} : deal(grid, per_segment);
  double* const partial = scratch.get<double>(cut.groups * cut.parts * N * grid.width);
  using Reduce = DeviceReduce<N, V, kStore, Formula, T>;
  if (!empty) teams(queue, label, cut.teams(), Reduce::kSharedBytes, Reduce{formula, partial, out, grid, cut});
  const std::int64_t items = empty ? 0 : (per_segment ? cut.parts : cut.groups * cut.parts);
  using Last = DeviceFinish<N, Finish>;
  const std::int64_t pieces = (layout.c + Last::kLanes - 1) / Last::kLanes;
  teams(queue, "kernels/reduce_finish", (per_segment ? layout.segments : 1) * pieces, Last::kSharedBytes,
        Last{finish, partial, items, grid.width, layout.c, layout.copies, pieces});
}

}  // namespace detail

template <int N, bool kStore, class Formula, class Finish, class T>
void device_reduce(const Queue& queue, const char* label, Scratch& scratch, const Layout& layout, bool per_segment,
                   const Formula& formula, const Finish& finish, T* out) {
  // Three sums of eight elements in double would exceed the shared memory that a team may have by default.
  using Element = typename Formula::Element;
  constexpr int kMost = N * sizeof(Element) == 6 ? 4 : static_cast<int>(16 / sizeof(Element));
  detail::with_vectors<Element, kMost>(layout, formula, out, [&]<int V>() {
    detail::run_reduce<N, V, kStore>(queue, label, scratch, layout, per_segment, formula, finish, out);
  });
}

}  // namespace seer::kernels::launch
