// SPDX-License-Identifier: Apache-2.0
// Copies tensors to another order, type or width, with library calls only. Weights are stored as float OIHW; cuDNN's
// fast engines need input channels fastest (KRSC), the operands' type, and channels per group in multiples of 8.
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "../packed_weights.hpp"
#include "../padded_widths.hpp"
#include "cudnn_graph.hpp"

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

enum class Padding : bool { add, remove };

class Reorder {
 public:
  explicit Reorder(cudnnHandle_t handle) : handle_(handle), scratch_(device::Space::device) {}

  /// Copies float weights (or their gradient) from one order to the other, or adds them to the destination.
  void order(const ConvShape& shape, const float* from, cudnn::Order from_order, float* to, cudnn::Order to_order,
             Accumulate accumulate);
  /// Same order, another type: a dense tensor with channels fastest.
  void cast(const device::Shape& shape, DType from_type, const void* from, DType to_type, void* to);

  /// Copies rows of `width` bytes to rows of `padded` bytes, filled up with zeros; Padding::remove: back.
  static void pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                  void* to, Padding padding);
  /// The same for the groups of KRSC weights. `kernel_area`: R * S.
  static void pad_weights(cudaStream_t stream, const PaddedWidths& widths, std::int64_t kernel_area, DType type,
                          const void* from, void* to, Padding padding);

  std::size_t held_bytes() const { return scratch_.bytes(); }

 private:
  using CastKey = std::tuple<device::Shape, DType, DType, std::int64_t>;

  cudnnHandle_t handle_;
  std::map<CastKey, cudnn::Plan> casts_;
  Scratch scratch_;
};

}  // namespace seer::dnn
