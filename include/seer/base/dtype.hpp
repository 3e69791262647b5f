// SPDX-License-Identifier: Apache-2.0
// Element types of tensors. The type is a run-time field; code switches on it once, outside the loops.
#pragma once

#include <cstddef>
#include <cstdint>

namespace seer {

enum class DType : std::uint8_t { f32, bf16, f16, u8 };

constexpr std::size_t dtype_bytes(DType type) {
  switch (type) {
    case DType::f32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

}  // namespace seer
