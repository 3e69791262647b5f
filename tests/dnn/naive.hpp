// SPDX-License-Identifier: Apache-2.0
// Convolutions and products by the definition, in double precision: what the backend is compared with.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "seer/base/random.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn::naive {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline Floats random(std::int64_t count, std::uint64_t seed) {
  Floats values(static_cast<std::size_t>(count));
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (auto& value : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    value = static_cast<float>(static_cast<double>(state >> 11) * 0x1p-53 * 2.0 - 1.0);
  }
  return values;
}

/// Calls visit(index into src, index into dst, index into weights) for each multiply-accumulate.
template <class Visit>
void visit_macs(const ConvShape& s, Visit&& visit) {
  const std::int64_t gi = s.c_in / s.groups, go = s.c_out / s.groups;
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t oy = 0; oy < s.out_h(); ++oy)
      for (std::int64_t ox = 0; ox < s.out_w(); ++ox)
        for (std::int64_t ky = 0; ky < s.kernel; ++ky)
          for (std::int64_t kx = 0; kx < s.kernel; ++kx) {
            const std::int64_t y = oy * s.stride + ky - s.pad, x = ox * s.stride + kx - s.pad;
            if (y < 0 || y >= s.h || x < 0 || x >= s.w) continue;
            for (std::int64_t o = 0; o < s.c_out; ++o)
              for (std::int64_t i = 0; i < gi; ++i) {
                visit(((n * s.h + y) * s.w + x) * s.c_in + o / go * gi + i,
                      ((n * s.out_h() + oy) * s.out_w() + ox) * s.c_out + o,
                      ((o * gi + i) * s.kernel + ky) * s.kernel + kx);
              }
          }
}

inline std::size_t at(std::int64_t index) {
  return static_cast<std::size_t>(index);
}

inline Doubles forward(const ConvShape& s, const Floats& src, const Floats& weight) {
  Doubles dst(at(s.n * s.out_h() * s.out_w() * s.c_out));
  visit_macs(s, [&](auto a, auto b, auto w) {
    dst[at(b)] += static_cast<double>(src[at(a)]) * static_cast<double>(weight[at(w)]);
  });
  return dst;
}
inline Doubles backward_data(const ConvShape& s, const Floats& d_dst, const Floats& weight) {
  Doubles d_src(at(s.n * s.h * s.w * s.c_in));
  visit_macs(s, [&](auto a, auto b, auto w) {
    d_src[at(a)] += static_cast<double>(d_dst[at(b)]) * static_cast<double>(weight[at(w)]);
  });
  return d_src;
}
inline Doubles backward_weights(const ConvShape& s, const Floats& src, const Floats& d_dst) {
  Doubles d_weight(at(s.weight_elems()));
  visit_macs(s, [&](auto a, auto b, auto w) {
    d_weight[at(w)] += static_cast<double>(src[at(a)]) * static_cast<double>(d_dst[at(b)]);
  });
  return d_weight;
}

/// op(a)[m,k] * op(b)[k,n] + bias (where not empty) + c (where not empty).
inline Doubles gemm(std::int64_t m, std::int64_t n, std::int64_t k, const Floats& a, Transpose ta, const Floats& b,
                    Transpose tb, const Floats& bias, const Floats& c) {
  Doubles out(at(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = c.empty() ? 0.0 : static_cast<double>(c[at(i * n + j)]);
      if (!bias.empty()) sum += static_cast<double>(bias[at(j)]);
      for (std::int64_t l = 0; l < k; ++l) {
        sum += static_cast<double>(a[at(ta == Transpose::yes ? l * m + i : i * k + l)]) *
               static_cast<double>(b[at(tb == Transpose::yes ? j * k + l : l * n + j)]);
      }
      out[at(i * n + j)] = sum;
    }
  }
  return out;
}

/// |found - expected| / |expected|, Euclidean norms.
inline double relative_error(const Floats& found, const Doubles& expected) {
  if (found.size() != expected.size()) return HUGE_VAL;
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - expected[i], 2);
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace seer::dnn::naive
