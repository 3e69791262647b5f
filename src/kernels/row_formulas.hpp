// SPDX-License-Identifier: Apache-2.0
// Formulas along a row, shared by several kernels (row_team.hpp).
#pragma once

#include "exponential.hpp"
#include "row_team.hpp"

namespace seer::kernels {

KOKKOS_FORCEINLINE_FUNCTION double wide(float v) {
  return static_cast<double>(v);
}

template <class T = float>
struct Value {
  const T* x;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(x);
  }
  KOKKOS_FORCEINLINE_FUNCTION T operator()(std::int64_t k) const { return x[k]; }
};

struct Square {
  const float* x;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(x);
  }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(x[k]) * wide(x[k]); }
};

struct Product {
  const float *a, *b;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(a);
    visit.elements(b);
  }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(a[k]) * wide(b[k]); }
};

/// x times a double factor.
struct Stretched {
  const float* x;
  double factor;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(x);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return static_cast<float>(wide(x[k]) * factor); }
};

/// Stores the result of a formula of (team, row) for each row.
template <class Body, class T>
struct Kept {
  Body body;
  T* values;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t row) const {
    const T value = body(team, row);
    if (team.leads()) values[row] = value;
  }
};

/// exp((a - top) * factor)
struct Exponential {
  const float* a;
  float top;
  double factor;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(a);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return exponential(a[k] - top, factor); }
};

}  // namespace seer::kernels
