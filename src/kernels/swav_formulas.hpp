// SPDX-License-Identifier: Apache-2.0
// Formulas of SwAV's kernels, one row of scores or codes each (row_team.hpp).
#pragma once

#include <cmath>
#include <limits>

#include "exponential.hpp"
#include "row_team.hpp"

namespace seer::kernels {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

KOKKOS_FORCEINLINE_FUNCTION double wide(float v) {
  return static_cast<double>(v);
}

struct RowMaximum {
  const float* s;
  std::int64_t k_count;
  template <class Team>
  KOKKOS_INLINE_FUNCTION float operator()(const Team& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    return team.max(k_count, [=](std::int64_t k) { return a[k]; });
  }
};

struct RowExponentials {
  const float* s;
  float* out;
  std::int64_t k_count;
  double factor;
  float reach, maximum;
  template <class Team>
  KOKKOS_INLINE_FUNCTION double operator()(const Team& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    float* b = out + row * k_count;
    const double scale = factor;
    // A row that lies so far below the rest that all of it would vanish in float is lifted until its best is
    // exp(-60): its share of the prototypes' first sums stays nothing, and from then on rows are scaled anyway.
    const float best = team.max(k_count, [=](std::int64_t k) { return a[k]; });
    const float top = best + reach < maximum ? best + reach : maximum;
    return team.sum(k_count, [=](std::int64_t k) {
      const float e = exponential(a[k] - top, scale);
      b[k] = e;
      return e;
    });
  }
};

struct RowLargestFinite {
  const float* q;
  std::int64_t k_count;
  template <class Team>
  KOKKOS_INLINE_FUNCTION float operator()(const Team& team, std::int64_t row) const {
    const float* b = q + row * k_count;
    return team.max(k_count, [=](std::int64_t k) { return b[k] < kInfinity ? b[k] : -kInfinity; });
  }
};

/// Infinite entries replaced; gives the row's sum.
struct RowRepair {
  float* q;
  std::int64_t k_count;
  float largest;
  template <class Team>
  KOKKOS_INLINE_FUNCTION double operator()(const Team& team, std::int64_t row) const {
    float* b = q + row * k_count;
    const float instead = largest;
    return team.sum(k_count, [=](std::int64_t k) {
      b[k] = b[k] == kInfinity ? instead : b[k];
      return b[k];
    });
  }
};

struct RowScale {
  float* data;
  const double* factors;
  std::int64_t k_count;
  double row_target;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const double* f = factors;
    const double sum = team.sum(k_count, [=](std::int64_t k) { return wide(a[k]) * f[k]; });
    const double target = row_target / sum;
    team.each(k_count, [=](std::int64_t k) { a[k] = static_cast<float>(wide(a[k]) * f[k] * target); });
  }
};

/// All factors in one row, as each may need the largest finite one.
struct Factors {
  double* sums;
  std::int64_t count;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t) const {
    constexpr double kWideInfinity = std::numeric_limits<double>::infinity();
    double* f = sums;
    const double k_total = static_cast<double>(count);
    team.each(count, [=](std::int64_t k) { f[k] = 1.0 / (k_total * f[k]); });
    const double most = team.max(count, [=](std::int64_t k) { return f[k] < kWideInfinity ? f[k] : 0.0; });
    const double largest = most > 0.0 ? most : 0.0;
    team.each(count, [=](std::int64_t k) { f[k] = f[k] == kWideInfinity || f[k] == -kWideInfinity ? largest : f[k]; });
  }
};

/// The first sum that is zero, or -1.
struct FirstEmpty {
  const double* sums;
  std::int64_t count;
  std::int64_t* found;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t) const {
    const double* s = sums;
    const std::int64_t place = team.first(count, [=](std::int64_t k) { return s[k] == 0.0; });
    if (team.leads()) *found = place;
  }
};

struct RowHarden {
  float* data;
  std::int64_t k_count;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const float most = team.max(k_count, [=](std::int64_t k) { return a[k]; });
    const std::int64_t best = team.first(k_count, [=](std::int64_t k) { return a[k] == most; });
    team.each(k_count, [=](std::int64_t k) { a[k] = k == best ? 1.0F : 0.0F; });
  }
};

struct RowCrossEntropy {
  const float *s, *code;
  float* gradient;  // null where no gradient is wanted
  std::int64_t k_count;
  double inv_temperature, codes, slope;
  template <class Team>
  KOKKOS_INLINE_FUNCTION double operator()(const Team& team, std::int64_t row) const {
    const float *a = s + row * k_count, *q = code + row * k_count;
    float* d = gradient + (gradient != nullptr ? row * k_count : 0);
    const double inverse = inv_temperature;
    const float largest = team.max(k_count, [=](std::int64_t k) { return a[k]; });
    double sum = 0;
    if (gradient != nullptr) {
      sum = team.sum(k_count, [=](std::int64_t k) {
        const float e = exponential(a[k] - largest, inverse);
        d[k] = e;
        return e;
      });
      const float softmax = static_cast<float>(slope * codes / sum), target = static_cast<float>(slope);
      team.each(k_count, [=](std::int64_t k) { d[k] = softmax * d[k] - target * q[k]; });
    } else {
      sum = team.sum(k_count, [=](std::int64_t k) { return exponential(a[k] - largest, inverse); });
    }
    const double cross = team.sum(k_count, [=](std::int64_t k) { return wide(q[k]) * wide(a[k]); });
    return codes * (wide(largest) * inverse + std::log(sum)) - cross * inverse;
  }
};

struct RowSoftmaxSums {
  const float* s;
  std::int64_t k_count;
  double inv_temperature;
  float *largest, *reciprocal;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    const double inverse = inv_temperature;
    const float most = team.max(k_count, [=](std::int64_t k) { return a[k]; });
    const double sum = team.sum(k_count, [=](std::int64_t k) { return exponential(a[k] - most, inverse); });
    if (team.leads()) {
      largest[row] = most;
      reciprocal[row] = static_cast<float>(1.0 / sum);
    }
  }
};

struct RowEntropy {
  const float* data;
  std::int64_t k_count;
  template <class Team>
  KOKKOS_INLINE_FUNCTION double operator()(const Team& team, std::int64_t row) const {
    const float* a = data + row * k_count;
    return team.sum(k_count, [=](std::int64_t k) {
      return a[k] >= std::numeric_limits<float>::min() ? -a[k] * logarithm(a[k]) : 0.0F;
    });
  }
};

}  // namespace seer::kernels
