// SPDX-License-Identifier: Apache-2.0
// Copies tensors to another order, type or width. Weights are stored as float OIHW; cuDNN's fast engines need input
// channels fastest (KRSC), the operands' type, and channels per group in multiples of 8.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "seer/dnn/backend.hpp"

namespace seer::dnn {

inline std::size_t bytes_of(std::int64_t elems, DType type) {
  return static_cast<std::size_t>(elems) * dtype_bytes(type);
}

/// Offsets into one block of memory, each aligned for every engine.
class Layout {
 public:
  std::size_t add(std::size_t bytes) { return std::exchange(bytes_, bytes_ + (bytes + 255) / 256 * 256); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

/// Float OIHW to KRSC of this type; `padded`: the channels of a group filled up with zeros.
void pack_weights(cudaStream_t stream, const ConvShape& shape, DType type, bool padded, const float* oihw, void* krsc);
/// Back: a gradient, stored or added.
void unpack_weights(cudaStream_t stream, const ConvShape& shape, DType type, bool padded, const void* krsc, float* oihw,
                    Accumulate accumulate);
/// 16-bit floating-point values to floats.
void widen(cudaStream_t stream, std::int64_t elems, DType type, const void* from, float* to);

enum class Padding : bool { add, remove };
/// Copies rows of `width` bytes to rows of `padded` bytes, filled up with zeros; Padding::remove: back.
void pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from, void* to,
         Padding padding);

}  // namespace seer::dnn
