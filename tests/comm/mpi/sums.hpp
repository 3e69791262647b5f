// SPDX-License-Identifier: Apache-2.0
// Values to sum over ranks, and how far a sum on a 16 or 32 bit wire may be from the exact one.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "seer/base/dtype.hpp"

namespace seer::comm {

/// No sum of these is exact in 16 bits, and some are a thousand times larger than others. Computed from integers, so
/// every caller gets the same bits.
inline float value(int rank, std::size_t i) {
  const auto mixed = static_cast<std::uint32_t>(i * 2654435761U + static_cast<std::uint32_t>(rank) * 40503U) >> 9;
  return static_cast<float>(static_cast<std::int32_t>(mixed) - (1 << 22)) * (i % 5 == 0 ? 0x1p-12F : 0x1p-22F);
}

inline std::vector<float> of_rank(int rank, std::size_t count) {
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = value(rank, i);
  return out;
}

/// Each of n values is rounded once, and so is each of n - 1 sums. Every rounding changes the result by at most half a
/// unit in the last place of a partial sum. A partial sum is at most the sum of magnitudes, plus earlier roundings.
void expect_sum(const auto& group, DType wire, std::size_t i, float found) {
  double sum = 0, magnitudes = 0;
  for (int r = 0; r < group.size(); ++r) {
    sum += static_cast<double>(value(r, i));
    magnitudes += std::abs(static_cast<double>(value(r, i)));
  }
  const double unit = wire == DType::f32 ? 0x1p-24 : wire == DType::bf16 ? 0x1p-8 : 0x1p-11;
  const double allowed = group.size() == 1 ? 0 : 1.05 * group.size() * unit * magnitudes;
  EXPECT_NEAR(static_cast<double>(found), sum, allowed) << "element " << i;
}

}  // namespace seer::comm
