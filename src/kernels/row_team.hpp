// SPDX-License-Identifier: Apache-2.0
// Kernels whose unit is a matrix row or a piece of a flat block: sums and maxima along it, then a pass that uses them.
#pragma once

#include "launch.hpp"

namespace seer::kernels::launch {

/// The threads that share one row (or one piece of a flat block): on the host a single one with vectorised loops.
struct HostRow {
  template <class Body>
  void each(std::int64_t count, const Body& body) const {
    const Body f = body;
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) f(k);
  }
  template <class Value>
  double sum(std::int64_t count, const Value& value) const {
    const Value f = value;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (std::int64_t k = 0; k < count; ++k) total += static_cast<double>(f(k));
    return total;
  }
  /// Largest value, -inf for none; NaN is passed over.
  template <class Value>
  float max(std::int64_t count, const Value& value) const {
    const Value f = value;
    float most = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : most)
    for (std::int64_t k = 0; k < count; ++k) {
      const float v = f(k);
      most = v > most ? v : most;
    }
    return most;
  }
  /// First index for which condition holds, or -1.
  template <class Condition>
  std::int64_t first(std::int64_t count, const Condition& condition) const {
    const Condition f = condition;
    constexpr std::int64_t kBlock = 4096;
    for (std::int64_t begin = 0; begin < count; begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, count);
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

/// body(team, row) for every row; body's loops over the row go through the team.
template <class Space, class Body>
void rows(const Queue& queue, const char* label, std::int64_t count, const Body& body) {
  loop<Space>(
      queue, label, count, KOKKOS_LAMBDA(std::int64_t row) { body(HostRow{}, row); });
}

/// Values a kernel left in scratch, added up in order on the host.
inline double ordered_sum(const double* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace seer::kernels::launch
