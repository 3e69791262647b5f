// SPDX-License-Identifier: Apache-2.0
// Kernels whose unit is a matrix row or a piece of a flat block: sums and maxima along it, then a pass that uses them.
// Their formulas are structs with a call operator of (team, row). Work along the row is written as smaller formulas
// f(k), which read element k through their pointers, or f(k, place), which also use its index in the row. These list
// their pointers in `fields`, as launch_device.hpp describes.
#pragma once

#include <type_traits>

#include "launch.hpp"

namespace seer::kernels::launch {

/// The result of a formula for two output arrays.
struct Pair {
  float first, second;
};

namespace detail {

template <class Formula>
KOKKOS_FORCEINLINE_FUNCTION auto value_at(const Formula& f, std::int64_t k, [[maybe_unused]] std::int64_t place) {
  if constexpr (std::is_invocable_v<const Formula&, std::int64_t, std::int64_t>)
    return f(k, place);
  else
    return f(k);
}
template <class Formula>
using ValueOf = std::decay_t<decltype(value_at(std::declval<const Formula&>(), 0, 0))>;

}  // namespace detail

/// The threads that share one row (or one piece of a flat block): on the host, a single thread with vectorised loops.
struct HostRow {
  /// True for the one thread that writes values that a row has only once.
  KOKKOS_INLINE_FUNCTION bool leads() const { return true; }
  /// out[k] = formula(k). The formula may read out.
  template <class Formula, class T>
  KOKKOS_INLINE_FUNCTION void write(std::int64_t count, const Formula& formula, T* out) const {
    const Formula f = formula;
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) out[k] = detail::value_at(f, k, k);
  }
  /// The same for a formula that returns a Pair.
  template <class Formula>
  KOKKOS_INLINE_FUNCTION void write(std::int64_t count, const Formula& formula, float* a, float* b) const {
    const Formula f = formula;
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) {
      const Pair values = f(k);
      a[k] = values.first;
      b[k] = values.second;
    }
  }
  template <class Formula>
  KOKKOS_INLINE_FUNCTION double sum(std::int64_t count, const Formula& formula) const {
    const Formula f = formula;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t k = 0; k < count; ++k) total += static_cast<double>(f(k));
    return total;
  }
  /// Also writes the values to out.
  template <class Formula>
  KOKKOS_INLINE_FUNCTION double sum(std::int64_t count, const Formula& formula, float* out) const {
    const Formula f = formula;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t k = 0; k < count; ++k) {
      const float value = f(k);
      out[k] = value;
      total += static_cast<double>(value);
    }
    return total;
  }
  /// Adds one by one, for sums whose order matters.
  template <class Formula>
  KOKKOS_INLINE_FUNCTION double sum_in_order(std::int64_t count, const Formula& formula) const {
    double total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += static_cast<double>(formula(k));
    return total;
  }
  /// Largest value; -inf if there is none. Ignores NaN.
  template <class Formula>
  KOKKOS_INLINE_FUNCTION auto max(std::int64_t count, const Formula& formula) const {
    using T = detail::ValueOf<Formula>;
    const Formula f = formula;
    T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
    for (std::int64_t k = 0; k < count; ++k) {
      const T v = f(k);
      most = v > most ? v : most;
    }
    return most;
  }
  /// First index for which the condition holds, or -1.
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
      for (std::int64_t k = begin; k < end; ++k)
        if (f(k)) return k;
    }
    return -1;
  }
};

#if defined(SEER_KERNELS_CUDA)
namespace detail {

/// Number of elements before the first 16-byte boundary. Vectors need the same number for all pointers.
struct Boundary {
  int elems = -1;
  bool same = true;
  KOKKOS_FORCEINLINE_FUNCTION void elements(const auto*&... p) { (found(p), ...); }
  template <class T>
  KOKKOS_FORCEINLINE_FUNCTION Boundary& found(const T* p) {
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    const int before = static_cast<int>((16 - address % 16) % 16 / sizeof(T));
    same = same && (elems < 0 || elems == before);
    elems = before;
    return *this;
  }
};

}  // namespace detail

/// On a device, a team shares the row. If all arrays have the same offset to a 16-byte boundary, each thread handles
/// four neighbouring elements (16 bytes of floats) of every 1024; elements before the first whole vector go one by one.
/// Sums over the team use a fixed tree, and all threads get the result. Each pass ends with a barrier or a reduction,
/// so the next one may read what it wrote.
struct DeviceRow {
  const detail::TeamMember& team;

  KOKKOS_FORCEINLINE_FUNCTION bool leads() const { return team.team_rank() == 0; }
  template <class Formula, class T>
  KOKKOS_FORCEINLINE_FUNCTION void write(std::int64_t count, const Formula& formula, T* out) const {
    places(count, formula, detail::Boundary{}.found(out), [=]<int V>(const Formula& f, std::int64_t k, int there) {
      alignas(16) T kept[V];
#pragma unroll
      for (int j = 0; j < V; ++j) kept[j] = detail::value_at(f, j, k + j);
      detail::write<V>(kept, out + k, there);
    });
    team.team_barrier();
  }
  template <class Formula>
  KOKKOS_FORCEINLINE_FUNCTION void write(std::int64_t count, const Formula& formula, float* a, float* b) const {
    const auto boundary = detail::Boundary{}.found(a).found(b);
    places(count, formula, boundary, [=]<int V>(const Formula& f, std::int64_t k, int there) {
      alignas(16) float first[V], second[V];
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const Pair values = f(j);
        first[j] = values.first;
        second[j] = values.second;
      }
      detail::write<V>(first, a + k, there);
      detail::write<V>(second, b + k, there);
    });
    team.team_barrier();
  }
  template <class Formula>
  KOKKOS_FORCEINLINE_FUNCTION double sum(std::int64_t count, const Formula& formula) const {
    double total = 0;
    places(count, formula, detail::Boundary{}, [&]<int V>(const Formula& f, std::int64_t, int there) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const auto value = static_cast<double>(f(j));
        total += j < there ? value : 0.0;
      }
    });
    team.team_reduce(Kokkos::Sum<double>(total));
    return total;
  }
  /// Uses the device's order, which is the same in every run.
  template <class Formula>
  KOKKOS_FORCEINLINE_FUNCTION double sum_in_order(std::int64_t count, const Formula& formula) const {
    return sum(count, formula);
  }
  template <class Formula>
  KOKKOS_FORCEINLINE_FUNCTION double sum(std::int64_t count, const Formula& formula, float* out) const {
    double total = 0;
    places(count, formula, detail::Boundary{}.found(out), [&]<int V>(const Formula& f, std::int64_t k, int there) {
      alignas(16) float kept[V];
#pragma unroll
      for (int j = 0; j < V; ++j) {
        kept[j] = f(j);
        total += j < there ? static_cast<double>(kept[j]) : 0.0;
      }
      detail::write<V>(kept, out + k, there);
    });
    team.team_reduce(Kokkos::Sum<double>(total));
    return total;
  }
  template <class Formula>
  KOKKOS_FORCEINLINE_FUNCTION auto max(std::int64_t count, const Formula& formula) const {
    using T = detail::ValueOf<Formula>;
    T most = -std::numeric_limits<T>::infinity();
    places(count, formula, detail::Boundary{}, [&]<int V>(const Formula& f, std::int64_t, int there) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const T v = f(j);
        most = j < there && v > most ? v : most;
      }
    });
    team.team_reduce(Kokkos::Max<T>(most));
    return most;
  }
  template <class Condition>
  KOKKOS_FORCEINLINE_FUNCTION std::int64_t first(std::int64_t count, const Condition& condition) const {
    std::int64_t found = count;
    places(count, condition, detail::Boundary{}, [&]<int V>(const Condition& f, std::int64_t k, int there) {
#pragma unroll
      for (int j = V - 1; j >= 0; --j) found = j < there && k + j < found && f(j) ? k + j : found;
    });
    team.team_reduce(Kokkos::Min<std::int64_t>(found));
    return found < count ? found : -1;
  }

 private:
  /// Calls take<V>(formula on registers, k, number of existing elements) for all groups of V elements of this thread.
  template <class Formula, class Take>
  KOKKOS_FORCEINLINE_FUNCTION void places(std::int64_t count, const Formula& formula, detail::Boundary boundary,
                                          const Take& take) const {
    Formula probe = formula;
    probe.fields(boundary);
    const bool vectors = boundary.same && boundary.elems >= 0 && boundary.elems < count;
    const std::int64_t before = vectors ? boundary.elems : count;
    walk<1>(0, before, formula, take);
    if (vectors) walk<4>(before, count, formula, take);
  }
  template <int V, class Formula, class Take>
  KOKKOS_FORCEINLINE_FUNCTION void walk(std::int64_t begin, std::int64_t end, const Formula& formula,
                                        const Take& take) const {
#pragma unroll 2
    for (std::int64_t k = begin + team.team_rank() * V; k < end; k += detail::kTeam * V) {
      Formula f = formula;
      detail::ElementStore<V, 8> store;
      detail::ElementReader<V, 8> in{k, detail::there(V, end - k), store.values};
      f.fields(in);
      take.template operator()<V>(f, k, in.count);
    }
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

/// Calls body(team, row) for every row. The body runs its loops over the row through the team.
template <class Space, class Body>
void rows(const Queue& queue, const char* label, std::int64_t count, const Body& body) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>) detail::teams(queue, label, count, 0, DeviceRows<Body>{body});
#endif
  if constexpr (!kOnDevice<Space>) loop<Space>(queue, label, count, HostRows<Body>{body});
}

}  // namespace seer::kernels::launch
