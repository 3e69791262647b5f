// SPDX-License-Identifier: Apache-2.0
// Copies of tensors in another order, type or width, all by library calls. Weights lie in OIHW as float; cuDNN's fast
// engines want them input channels fastest (KRSC), in the operands' type, and the channels of a group in multiples
// of 8.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>

#include "../packed_weights.hpp"
#include "../padded_widths.hpp"
#include "cudnn_graph.hpp"

namespace seer::dnn {

/// Pieces of one block of memory, each on a boundary that suits every engine.
class Layout {
 public:
  std::size_t add(std::size_t bytes) { return std::exchange(bytes_, bytes_ + (bytes + 255) / 256 * 256); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

class Reorder {
 public:
  explicit Reorder(cudnnHandle_t handle) : handle_(handle), scratch_(device::Space::device) {}

  /// Float weights (or their gradient) from one order to the other; added to what is there, if wanted.
  void order(const ConvShape& shape, const float* from, cudnn::Order from_order, float* to, cudnn::Order to_order,
             Accumulate accumulate);
  /// Same order, another type. `dims`: N, C, H, W of a dense tensor whose channels are fastest.
  void cast(const std::array<std::int64_t, 4>& dims, DType from_type, const void* from, DType to_type, void* to);

  /// Rows of `width` bytes to rows of `padded` bytes, zeros behind, and back.
  static void pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                  void* to);
  static void unpad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                    void* to);
  /// KRSC weights of padded groups, and back. `kernel_area`: R * S.
  static void pad_weights(cudaStream_t stream, const PaddedWidths& widths, std::int64_t kernel_area, DType type,
                          const void* from, void* to);
  static void unpad_weights(cudaStream_t stream, const PaddedWidths& widths, std::int64_t kernel_area, DType type,
                            const void* from, void* to);

  std::size_t held_bytes() const { return scratch_.bytes(); }

 private:
  using CastKey = std::tuple<std::array<std::int64_t, 4>, DType, DType, std::int64_t>;

  cudnnHandle_t handle_;
  std::map<CastKey, cudnn::Plan> casts_;
  Scratch scratch_;
};

}  // namespace seer::dnn
