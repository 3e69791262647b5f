// SPDX-License-Identifier: Apache-2.0
// Vectors of eight floats, by the compilers' vector extension.
#pragma once

#include <cstring>

#pragma GCC diagnostic ignored "-Wpsabi"  // without AVX, vectors by value are inlined and never used (kVectors)

namespace seer::dnn::direct {

using V8 = float __attribute__((vector_size(32)));

#if defined(__AVX512VL__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
#if defined(__AVX2__) && defined(__FMA__)
constexpr bool kVectors = true;
#else
constexpr bool kVectors = false;
#endif

// Any float's address will do; each compiles to one unaligned move.
inline void store(float* to, const V8& value) {
  std::memcpy(to, &value, sizeof(V8));
}
inline V8 load(const float* from) {
  V8 value;
  std::memcpy(&value, from, sizeof(V8));
  return value;
}

}  // namespace seer::dnn::direct
