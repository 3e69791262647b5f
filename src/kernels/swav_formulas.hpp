// SPDX-License-Identifier: Apache-2.0
// Formulas of SwAV's kernels; each handles one row of scores or codes (row_team.hpp).
#pragma once

#include <cmath>
#include <limits>

#include "row_formulas.hpp"

namespace seer::kernels {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct RowMaximum {
  const float* s;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION float operator()(const auto& team, std::int64_t row) const {
    return team.max(k_count, Value<>{s + row * k_count});
  }
};

struct RowExponentials {
  const float* s;
  float* out;
  std::int64_t k_count;
  double factor;
  float reach;
  const float* maximum;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    // A row so far below the maximum that all its entries would underflow in float is shifted up until its largest
    // entry is exp(-60). Its share of the first prototype sums stays negligible, and later steps scale rows anyway.
    const float best = team.max(k_count, Value<>{a});
    const float most = *maximum, top = best + reach < most ? best + reach : most;
    return team.sum(k_count, Exponential{a, top, factor}, out + row * k_count);
  }
};

struct Finite {
  const float* b;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(b); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return b[k] < kInfinity ? b[k] : -kInfinity; }
};

struct RowLargestFinite {
  const float* q;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION float operator()(const auto& team, std::int64_t row) const {
    return team.max(k_count, Finite{q + row * k_count});
  }
};

struct Repaired {
  const float* b;
  float instead;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(b); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return b[k] == kInfinity ? instead : b[k]; }
};

/// Replaces infinite entries by the largest finite one, if there is one. Returns the row's sum.
struct RowRepair {
  float* q;
  std::int64_t k_count;
  const float* largest;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    float* b = q + row * k_count;
    return team.sum(k_count, Repaired{b, *largest < 0 ? kInfinity : *largest}, b);
  }
};

/// a * f in double.
struct Share {
  const float* a;
  const double* f;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, f); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(a[k]) * f[k]; }
};
struct ShareOfTarget {
  Share share;
  double target;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { share.fields(visit); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return static_cast<float>(share(k) * target); }
};

struct RowScale {
  float* data;
  const double* factors;
  std::int64_t k_count;
  double row_target;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const Share share{a, factors};
    const double sum = team.sum(k_count, share);
    team.write(k_count, ShareOfTarget{share, row_target / sum}, a);
  }
};

constexpr double kWideInfinity = std::numeric_limits<double>::infinity();

struct Reciprocal {
  const double* f;
  double k_total;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(f); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return 1.0 / (k_total * f[k]); }
};
struct FiniteFactor {
  const double* f;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(f); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return f[k] < kWideInfinity ? f[k] : 0.0; }
};
struct RepairedFactor {
  const double* f;
  double largest;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(f); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const {
    return f[k] == kWideInfinity || f[k] == -kWideInfinity ? largest : f[k];
  }
};

struct Times {
  const float* x;
  float factor;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return x[k] * factor; }
};
/// Divides by the sum of all entries. Reports an infinite or NaN sum as trouble.
struct RowDivide {
  float* data;
  const double* total;
  double* trouble;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const double sum = *total;
    float* a = data + row * k_count;
    team.write(k_count, Times{a, static_cast<float>(1 / sum)}, a);
    if (row == 0 && team.leads() && !(sum < kWideInfinity)) *trouble = 1;
  }
};

struct IsZero {
  const double* s;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(s); }
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t k) const { return s[k] == 0.0; }
};

/// One row holds all factors, because each may need the largest finite one.
struct Factors {
  double* sums;
  std::int64_t count;
  double* trouble;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    if (team.first(count, IsZero{sums}) >= 0 && team.leads()) *trouble = 1;
    team.write(count, Reciprocal{sums, static_cast<double>(count)}, sums);
    const double most = team.max(count, FiniteFactor{sums});
    team.write(count, RepairedFactor{sums, most > 0.0 ? most : 0.0}, sums);
  }
};

struct AnyEmpty {
  const double* sums;
  std::int64_t count;
  double* empty;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    const std::int64_t place = team.first(count, IsZero{sums});
    if (team.leads()) *empty = place >= 0 ? 1 : 0;
  }
};

struct Equal {
  const float* a;
  float value;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a); }
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t k) const { return a[k] == value; }
};
struct OneAt {
  std::int64_t best;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t place) const {
    return place == best ? 1.0F : 0.0F;
  }
};

struct RowHarden {
  float* data;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const float most = team.max(k_count, Value<>{a});
    const std::int64_t best = team.first(k_count, Equal{a, most});
    team.write(k_count, OneAt{best}, a);
  }
};

struct ScoreGradient {
  const float *d, *q;
  float softmax, target;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(d, q); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return softmax * d[k] - target * q[k]; }
};

struct RowCrossEntropy {
  const float *s, *code;
  float* gradient;
  std::int64_t k_count;
  double inv_temperature, codes, slope;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    const float *a = s + row * k_count, *q = code + row * k_count;
    float* d = gradient + row * k_count;
    const float largest = team.max(k_count, Value<>{a});
    const double sum = team.sum(k_count, Exponential{a, largest, inv_temperature}, d);
    const float softmax = static_cast<float>(slope * codes / sum), target = static_cast<float>(slope);
    team.write(k_count, ScoreGradient{d, q, softmax, target}, d);
    const double cross = team.sum(k_count, Product{q, a});
    return codes * (wide(largest) * inv_temperature + std::log(sum)) - cross * inv_temperature;
  }
};

struct RowSoftmaxSums {
  const float* s;
  std::int64_t k_count;
  double inv_temperature;
  float *largest, *reciprocal;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    const float most = team.max(k_count, Value<>{a});
    const double sum = team.sum(k_count, Exponential{a, most, inv_temperature});
    if (team.leads()) {
      largest[row] = most;
      reciprocal[row] = static_cast<float>(1.0 / sum);
    }
  }
};

struct EntropyTerm {
  const float* a;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const {
    return a[k] >= std::numeric_limits<float>::min() ? -a[k] * logarithm(a[k]) : 0.0F;
  }
};

struct Largest {
  const float* values;
  float* out;
  std::int64_t count;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    const float most = team.max(count, Value<>{values});
    if (team.leads()) *out = most;
  }
};

struct RowEntropy {
  const float* data;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    return team.sum(k_count, EntropyTerm{data + row * k_count});
  }
};

}  // namespace seer::kernels
