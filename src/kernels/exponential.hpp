// SPDX-License-Identifier: Apache-2.0
// Float exponential and logarithm that the compiler can vectorise inside any loop.
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <cstring>

namespace seer::kernels {

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
  std::int64_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const std::int32_t exponent = static_cast<std::int32_t>(bits), half = exponent >> 1;
  const std::uint32_t low_bits = static_cast<std::uint32_t>(half + 127) << 23;
  const std::uint32_t high_bits = static_cast<std::uint32_t>(exponent - half + 127) << 23;
  float low, high;
  std::memcpy(&low, &low_bits, sizeof low);
  std::memcpy(&high, &high_bits, sizeof high);
  return p * low * high;
}

/// Natural logarithm of a positive normal number, within 2 ulp (Cephes' logf).
KOKKOS_FORCEINLINE_FUNCTION float logarithm(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t shifted = bits - 0x3f3504f3U;  // sqrt(1/2): puts the mantissa into [sqrt(1/2), sqrt(2))
  const float exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  bits = (shifted & 0x007fffffU) + 0x3f3504f3U;
  float m;
  std::memcpy(&m, &bits, sizeof m);
  const float f = m - 1.0F, square = f * f;
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

}  // namespace seer::kernels
