// SPDX-License-Identifier: Apache-2.0
// Element types of tensors. The type is a run-time field; code switches on it once, outside the loops.
#pragma once

#include <cstddef>
#include <cstdint>

namespace seer {

enum class DType : std::uint8_t { f32, bf16, f16, u8 };

constexpr std::size_t dtype_bytes(DType type) {
  return type == DType::f32 ? 4 : type == DType::u8 ? 1 : 2;
}

}  // namespace seer
