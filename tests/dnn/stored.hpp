// SPDX-License-Identifier: Apache-2.0
// Tensors of half precision in host memory.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "naive.hpp"
#include "seer/base/half.hpp"
#include "seer/device/tensor.hpp"

namespace seer::dnn {

/// Values as they are stored in memory: rounded to the type.
struct Stored {
  DType type;
  std::vector<std::uint16_t> data;

  Stored(DType t, const naive::Floats& values) : type(t) {
    for (const float v : values) {
      data.push_back(t == DType::bf16 ? std::bit_cast<std::uint16_t>(BFloat16(v))
                                      : std::bit_cast<std::uint16_t>(Float16(v)));
    }
  }
  naive::Floats values() const {
    naive::Floats out;
    for (const auto bits : data) {
      out.push_back(type == DType::bf16 ? static_cast<float>(std::bit_cast<BFloat16>(bits))
                                        : static_cast<float>(std::bit_cast<Float16>(bits)));
    }
    return out;
  }
  device::Tensor tensor(device::Shape shape) { return {data.data(), shape, type}; }
};

inline naive::Floats rounded(DType type, const naive::Floats& values) {
  return Stored(type, values).values();
}

/// Half a unit in the last place of a result: the rounding error of storing it, and the only error that is allowed.
inline double rounding(DType type) {
  return type == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

}  // namespace seer::dnn
