// SPDX-License-Identifier: Apache-2.0
// Formulas along a row, shared by several kernels (row_team.hpp).
#pragma once

#include <initializer_list>

#include "exponential.hpp"
#include "row_team.hpp"

namespace seer::kernels {

KOKKOS_FORCEINLINE_FUNCTION double wide(float v) {
  return static_cast<double>(v);
}

template <class T = float>
struct Value {
  const T* x;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION T operator()(std::int64_t k) const { return x[k]; }
};

/// The same value for every element.
struct Constant {
  float value;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t) const { return value; }
};

struct Square {
  const float* x;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(x[k]) * wide(x[k]); }
};

struct Product {
  const float *a, *b;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, b); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(a[k]) * wide(b[k]); }
};

/// x times a double factor.
struct Stretched {
  const float* x;
  double factor;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return static_cast<float>(wide(x[k]) * factor); }
};

/// Stores the result of a formula of (team, row) for each row.
template <class Body, class T>
struct Kept {
  Body body;
  T* values;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const T value = body(team, row);
    if (team.leads()) values[row] = value;
  }
};

/// out[i] = factor * the sum of the i-th `count` values, added in order.
struct Total {
  const double* values;
  double* out;
  std::int64_t count;
  double factor = 1;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    const double sum = team.sum_in_order(count, Value<double>{values + i * count});
    if (team.leads()) out[i] = factor * sum;
  }
};

/// *out = factor * the sum of body(team, row) over the rows of the first tensor, added in order. `tensors`: all that
/// the body reads or writes.
template <class Body>
void sum_over_rows(device::Queue& queue, const char* label, std::initializer_list<device::Tensor> tensors,
                   const Body& body, double* out, double factor = 1) {
  std::int64_t bytes = 0;
  for (const device::Tensor& tensor : tensors) bytes += tensor.bytes();
  launch::on_floats(queue, tensors, {bytes, 2}, [&]<class Space>() {
    const std::int64_t count = tensors.begin()->rows();
    launch::Scratch scratch(queue);
    double* sums = scratch.get<double>(count);
    launch::rows<Space>(queue, label, count, Kept<Body, double>{body, sums});
    launch::rows<Space>(queue, "kernels/total", 1, Total{sums, out, count, factor});
  });
}

/// exp((a - top) * factor)
struct Exponential {
  const float* a;
  float top;
  double factor;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return exponential(a[k] - top, factor); }
};

}  // namespace seer::kernels
