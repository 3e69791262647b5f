// SPDX-License-Identifier: Apache-2.0
// half.hpp for files compiled as CUDA: the same two structs, 16 bits each, with CUDA's own conversions. Device
// compilers have no _Float16, and rounding with integer arithmetic would cost more time than the saved memory traffic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace seer {

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

static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);

}  // namespace seer
