// SPDX-License-Identifier: Apache-2.0
// The noise of an erased pixel, for host loops and device kernels: Box and Muller's method on the draws of base/random.
#pragma once

#include <Random123/philox.h>

#include <Kokkos_Core.hpp>
#include <cmath>
#include <numbers>

#include "seer/base/random.hpp"

namespace seer::kernels::formula {

/// Three standard normal values from block `block` of the stream (seed, Purpose::erasing_noise, position, crop).
KOKKOS_FORCEINLINE_FUNCTION void noise(std::uint64_t seed, std::uint64_t position, std::uint32_t crop,
                                       std::uint32_t block, float* out) {
  const auto high = [](std::uint64_t bits) { return static_cast<std::uint32_t>(bits >> 32); };
  const auto low = [](std::uint64_t bits) { return static_cast<std::uint32_t>(bits); };
  const auto draws = r123::Philox4x32()(
      {{block, low(position), high(position), (static_cast<std::uint32_t>(Purpose::erasing_noise) << 24) ^ crop}},
      {{low(seed), high(seed)}});
  for (int pair = 0; pair < 2; ++pair) {
    const auto uniform = [](std::uint32_t bits) { return static_cast<float>((bits >> 8) + 1U) * 0x1p-24F; };  // (0, 1]
    const float radius = std::sqrt(-2.0F * std::log(uniform(draws[2 * pair])));
    const float angle = 2.0F * std::numbers::pi_v<float> * uniform(draws[2 * pair + 1]);
    out[2 * pair] = radius * std::cos(angle);
    if (pair == 0) out[1] = radius * std::sin(angle);
  }
}

}  // namespace seer::kernels::formula
