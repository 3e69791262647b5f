// SPDX-License-Identifier: Apache-2.0
// Every value of both types, and rounding against what "to nearest, ties to even" means.
#include "seer/base/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace seer {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// All finite values from 0 upwards, in order; the last is the largest.
template <class T>
std::vector<float> finite_values() {
  std::vector<float> out;
  for (std::uint32_t bits = 0; bits < 0x8000; ++bits) {
    const float value = std::bit_cast<T>(static_cast<std::uint16_t>(bits));
    if (std::isfinite(value)) out.push_back(value);
  }
  return out;
}

template <class T>
class Half : public testing::Test {};
using Types = testing::Types<BFloat16, Float16>;
TYPED_TEST_SUITE(Half, Types);

TYPED_TEST(Half, EveryValueSurvives) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto stored = std::bit_cast<TypeParam>(static_cast<std::uint16_t>(bits));
    const float value = stored;
    const TypeParam again(value);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(again))) << bits;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint16_t>(again), bits);
    }
  }
}

TYPED_TEST(Half, RoundsToNearestTiesToEven) {
  const auto values = finite_values<TypeParam>();
  for (std::size_t i = 0; i + 1 < values.size(); ++i) {
    const float low = values[i], high = values[i + 1];
    const float middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
    if (middle == low || middle == high) continue;  // the smallest subnormals of float itself
    const float even = i % 2 == 0 ? low : high;     // the position is the bit pattern
    for (const float sign : {1.0F, -1.0F}) {
      EXPECT_EQ(static_cast<float>(TypeParam(sign * middle)), sign * even);
      EXPECT_EQ(static_cast<float>(TypeParam(sign * std::nextafter(middle, 0.0F))), sign * low);
      EXPECT_EQ(static_cast<float>(TypeParam(sign * std::nextafter(middle, kInfinity))), sign * high);
    }
  }
}

TYPED_TEST(Half, LeavesTheRangeToInfinity) {
  const auto values = finite_values<TypeParam>();
  const double largest = values.back(), step = largest - static_cast<double>(values[values.size() - 2]);
  EXPECT_EQ(static_cast<float>(TypeParam(static_cast<float>(largest + 0.499 * step))), values.back());
  EXPECT_EQ(static_cast<float>(TypeParam(static_cast<float>(largest + 0.5 * step))), kInfinity);
  EXPECT_EQ(static_cast<float>(TypeParam(-kInfinity)), -kInfinity);
}

TYPED_TEST(Half, NanWithLowBitsOnlyStaysNan) {
  for (const std::uint32_t bits : {0x7f800001U, 0xff800001U, 0x7fffffffU, 0x7fc00000U}) {
    EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::bit_cast<float>(bits))))) << std::hex << bits;
  }
}

TEST(Float16, KnownValues) {
  EXPECT_EQ(static_cast<float>(Float16(65519.0F)), 65504.0F);
  EXPECT_EQ(static_cast<float>(Float16(65520.0F)), kInfinity);
  EXPECT_EQ(static_cast<float>(Float16(1.0F / 3)), 0.333251953125F);
}

TEST(BFloat16, KnownValues) {
  EXPECT_EQ(static_cast<float>(BFloat16(1.0F / 3)), 0.333984375F);
  EXPECT_EQ(static_cast<float>(BFloat16(257.0F)), 256.0F);
}

}  // namespace
}  // namespace seer
