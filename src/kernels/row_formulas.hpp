// SPDX-License-Identifier: Apache-2.0
// Formulas along a row, shared by several kernels (row_team.hpp). Float exponential and logarithm that the compiler can
// vectorise inside any loop.
#pragma once

#include <bit>
#include <cmath>
#include <functional>
#include <initializer_list>

#include "row_team.hpp"

namespace seer::kernels {

KOKKOS_FORCEINLINE_FUNCTION double wide(float v) {
  return static_cast<double>(v);
}

/// function(x[k]), for element k of a row or of a tensor.
template <class T, class Function>
struct Each {
  const T* x;
  Function function = {};
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION auto operator()(std::int64_t k) const { return function(x[k]); }
  KOKKOS_FORCEINLINE_FUNCTION auto operator()(std::int64_t, std::int64_t i, std::int64_t) const { return (*this)(i); }
};
template <class T, class Function>
Each(const T*, Function) -> Each<T, Function>;
template <class T = float>
using Value = Each<T, std::identity>;

/// The same value for every element.
struct Constant {
  float value;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t) const { return value; }
};

struct Square {
  KOKKOS_FORCEINLINE_FUNCTION double operator()(float v) const { return wide(v) * wide(v); }
};

struct Scaled {
  float factor;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return v * factor; }
};

struct Product {
  const float *a, *b;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, b); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(a[k]) * wide(b[k]); }
};

/// Scaled by a double factor.
struct Stretched {
  double factor;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return static_cast<float>(wide(v) * factor); }
};

constexpr double kNormFloor = 1e-12;  // method.md 2: x / max(|x|, 1e-12)

/// Divides a row by its norm, unless that is within `tolerance` of one.
struct UnitRow {
  const float* src;
  float *dst, *norms;  ///< norms: null, or gets the norm
  std::int64_t c;
  double tolerance = 0;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float* a = src + row * c;
    const double norm = std::sqrt(team.sum(c, Each{a, Square{}}));
    if (norms != nullptr && team.leads()) norms[row] = static_cast<float>(norm);
    if (std::abs(norm - 1) < tolerance) return;
    team.write(c, Each{a, Stretched{1.0 / (norm > kNormFloor ? norm : kNormFloor)}}, dst + row * c);
  }
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

/// x[i] = function(x[i]) for every element.
template <class Function>
void in_place(device::Queue& queue, const char* label, const device::Tensor& x, const Function& function) {
  launch::on_floats(
      queue, {x}, {2 * x.bytes()},
      [&]<class Space>() {
        launch::map<Space>(queue, label, launch::flat(x.elems()), x.f32(), Each<float, Function>{x.f32(), function});
      },
      label + std::string_view("kernels/").size());
}

/// exp(x * factor) within 2 ulp, down to subnormal results, +inf above the range, NaN for NaN. The product and the
/// range reduction are in double: with the sharp temperatures of method.md 3.2 the argument reaches -67, where rounding
/// it to float would give a relative error of 4e-6.
KOKKOS_FORCEINLINE_FUNCTION float exponential(float x, double factor = 1.0) {
  constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453, kRound = 6755399441055744.0;  // 1.5 * 2^52
  double t = static_cast<double>(x) * factor;
  t = t < -104.0 ? -104.0 : t;
  t = t > 89.0 ? 89.0 : t;
  const double shifted = t * kLog2E + kRound;  // its low bits hold the nearest integer
  const double n = shifted - kRound;
  const float r = static_cast<float>(t - n * kLn2);
  float p = 1.9875691500e-4F;  // Cephes' expf: minimax on [-ln2/2, ln2/2]
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  // 2^n in two factors, so that both ends of the range are correct.
  const auto exponent = static_cast<std::int32_t>(std::bit_cast<std::int64_t>(shifted)), half = exponent >> 1;
  const auto low = std::bit_cast<float>(static_cast<std::uint32_t>(half + 127) << 23);
  const auto high = std::bit_cast<float>(static_cast<std::uint32_t>(exponent - half + 127) << 23);
  return p * low * high;
}

/// Natural logarithm of a positive normal number, within 2 ulp (Cephes' logf).
KOKKOS_FORCEINLINE_FUNCTION float logarithm(float x) {
  const std::uint32_t shifted =
      std::bit_cast<std::uint32_t>(x) - 0x3f3504f3U;  // sqrt(1/2): puts the mantissa into [sqrt(1/2), sqrt(2))
  const float exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const float f = std::bit_cast<float>((shifted & 0x007fffffU) + 0x3f3504f3U) - 1.0F, square = f * f;
  float p = 7.0376836292e-2F;
  p = p * f - 1.1514610310e-1F;
  p = p * f + 1.1676998740e-1F;
  p = p * f - 1.2420140846e-1F;
  p = p * f + 1.4249322787e-1F;
  p = p * f - 1.6668057665e-1F;
  p = p * f + 2.0000714765e-1F;
  p = p * f - 2.4999993993e-1F;
  p = p * f + 3.3333331174e-1F;
  p = p * f * square - exponent * 2.12194440e-4F - 0.5F * square;  // ln 2 in two parts
  return p + f + exponent * 0.693359375F;
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
