// SPDX-License-Identifier: Apache-2.0
// Kernels whose unit is a matrix row or a piece of a flat block: sums and maxima along it, then a pass that uses them.
// Their formulas are structs with a call operator of (team, row).
#pragma once

#include "launch.hpp"

namespace seer::kernels::launch {

/// The threads that share one row (or one piece of a flat block): on the host a single one with vectorised loops.
struct HostRow {
  /// Whether this thread is the one that writes what the row has once.
  KOKKOS_INLINE_FUNCTION bool leads() const { return true; }
  template <class Body>
  KOKKOS_INLINE_FUNCTION void each(std::int64_t count, const Body& body) const {
    const Body f = body;
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) f(k);
  }
  template <class Value>
  KOKKOS_INLINE_FUNCTION double sum(std::int64_t count, const Value& value) const {
    const Value f = value;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t k = 0; k < count; ++k) total += static_cast<double>(f(k));
    return total;
  }
  /// Largest value, -inf for none; NaN is passed over.
  template <class Value>
  KOKKOS_INLINE_FUNCTION auto max(std::int64_t count, const Value& value) const {
    using T = std::decay_t<decltype(value(count))>;
    const Value f = value;
    T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
    for (std::int64_t k = 0; k < count; ++k) {
      const T v = f(k);
      most = v > most ? v : most;
    }
    return most;
  }
  /// First index for which condition holds, or -1.
  template <class Condition>
  KOKKOS_INLINE_FUNCTION std::int64_t first(std::int64_t count, const Condition& condition) const {
    const Condition f = condition;
    constexpr std::int64_t kBlock = 4096;
    for (std::int64_t begin = 0; begin < count; begin += kBlock) {
      const std::int64_t end = begin + kBlock < count ? begin + kBlock : count;
      std::int32_t any = 0;
#pragma omp simd reduction(| : any)
      for (std::int64_t k = begin; k < end; ++k) any |= static_cast<std::int32_t>(f(k));
      if (any == 0) continue;
      for (std::int64_t k = begin; k < end; ++k) {
        if (f(k)) return k;
      }
    }
    return -1;
  }
};

#if defined(SEER_KERNELS_CUDA)
/// On a device a team, each thread with every 256th place: what one pass writes at a place, the same thread reads in
/// the next one. The team's threads are added up in a fixed tree, and all of them get the result.
struct DeviceRow {
  const detail::TeamMember& team;

  KOKKOS_FORCEINLINE_FUNCTION bool leads() const { return team.team_rank() == 0; }
  template <class Body>
  KOKKOS_FORCEINLINE_FUNCTION void each(std::int64_t count, const Body& body) const {
#pragma unroll 4
    for (std::int64_t k = team.team_rank(); k < count; k += detail::kTeam) body(k);
  }
  template <class Value>
  KOKKOS_FORCEINLINE_FUNCTION double sum(std::int64_t count, const Value& value) const {
    double total = 0;
#pragma unroll 4
    for (std::int64_t k = team.team_rank(); k < count; k += detail::kTeam) total += static_cast<double>(value(k));
    team.team_reduce(Kokkos::Sum<double>(total));
    return total;
  }
  template <class Value>
  KOKKOS_FORCEINLINE_FUNCTION auto max(std::int64_t count, const Value& value) const {
    using T = std::decay_t<decltype(value(count))>;
    T most = -std::numeric_limits<T>::infinity();
#pragma unroll 4
    for (std::int64_t k = team.team_rank(); k < count; k += detail::kTeam) {
      const T v = value(k);
      most = v > most ? v : most;
    }
    team.team_reduce(Kokkos::Max<T>(most));
    return most;
  }
  template <class Condition>
  KOKKOS_FORCEINLINE_FUNCTION std::int64_t first(std::int64_t count, const Condition& condition) const {
    std::int64_t found = count;
    for (std::int64_t k = team.team_rank(); k < count && found == count; k += detail::kTeam) {
      if (condition(k)) found = k;
    }
    team.team_reduce(Kokkos::Min<std::int64_t>(found));
    return found < count ? found : -1;
  }
};

template <class Body>
struct DeviceRows {
  Body body;
  KOKKOS_FUNCTION void operator()(const detail::TeamMember& team) const { body(DeviceRow{team}, team.league_rank()); }
};
#endif

template <class Body>
struct HostRows {
  Body body;
  void operator()(std::int64_t row) const { body(HostRow{}, row); }
};

/// body(team, row) for every row; body's loops over the row go through the team.
template <class Space, class Body>
void rows(const Queue& queue, const char* label, std::int64_t count, const Body& body) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>) detail::teams(queue, label, count, 0, DeviceRows<Body>{body});
#endif
  if constexpr (!kOnDevice<Space>) loop<Space>(queue, label, count, HostRows<Body>{body});
}

/// Added up in order on the host.
inline double ordered_sum(const double* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace seer::kernels::launch
