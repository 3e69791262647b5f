// SPDX-License-Identifier: Apache-2.0
// The two 16-bit floating-point types as elements in memory (DType::bf16, DType::f16). They only store values: reading
// one gives a float, and all arithmetic uses float or double. Loops should assign floats to elements; compilers
// vectorize that, but not copies of the structs.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <bit>
#endif
#include <cstdint>

namespace seer {

#if defined(__CUDACC__)

// For files compiled as CUDA: the same two structs, 16 bits each, with CUDA's own conversions. Device compilers have no
// _Float16, and rounding with integer arithmetic would cost more time than the saved memory traffic.
struct BFloat16 {
  std::uint16_t bits;

  BFloat16() = default;
  __host__ __device__ explicit BFloat16(float value) : bits(__bfloat16_as_ushort(__float2bfloat16_rn(value))) {}
  __host__ __device__ BFloat16& operator=(float value) {
    bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    return *this;
  }
  __host__ __device__ operator float() const { return __bfloat162float(__ushort_as_bfloat16(bits)); }
};

struct Float16 {
  std::uint16_t bits;

  Float16() = default;
  __host__ __device__ explicit Float16(float value) : bits(__half_as_ushort(__float2half_rn(value))) {}
  __host__ __device__ Float16& operator=(float value) {
    bits = __half_as_ushort(__float2half_rn(value));
    return *this;
  }
  __host__ __device__ operator float() const { return __half2float(__ushort_as_half(bits)); }
};

#else

/// The upper half of a float: same range, 8 significant bits. Rounds to nearest, ties to even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits;

  BFloat16() = default;
  constexpr explicit BFloat16(float value) : bits(rounded(std::bit_cast<std::uint32_t>(value))) {}
  constexpr BFloat16& operator=(float value) {
    bits = rounded(std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  constexpr operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

 private:
  static constexpr std::uint16_t rounded(std::uint32_t x) {
    // A NaN whose set bits are all in the lower half would become an infinity: make it a quiet NaN.
    const std::uint32_t nan = (x >> 16) | 0x40U, nearest = (x + 0x7fffU + ((x >> 16) & 1U)) >> 16;
    return static_cast<std::uint16_t>((x & 0x7fffffffU) > 0x7f800000U ? nan : nearest);
  }
};

/// IEEE binary16: 11 significant bits, up to 65504, then infinity. Rounds to nearest, ties to even.
struct Float16 {
  _Float16 value;

  Float16() = default;
  constexpr explicit Float16(float v) : value(static_cast<_Float16>(v)) {}
  constexpr Float16& operator=(float v) {
    value = static_cast<_Float16>(v);
    return *this;
  }
  constexpr operator float() const { return static_cast<float>(value); }
};

#endif

static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);

}  // namespace seer
