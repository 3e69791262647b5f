// SPDX-License-Identifier: Apache-2.0
// Padded widths of tensors and weights for a device's tensor cores, and sizes of its copies of the weights. Does not
// depend on CUDA: host builds plan for devices.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seer/base/dtype.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// The channels of each group, rounded up to multiples of 16 bytes in half precision.
struct PaddedWidths {
  std::int64_t groups, in, out, padded_in, padded_out;  ///< channels per group
  explicit PaddedWidths(const ConvShape& s)
      : groups(s.groups),
        in(s.c_in / s.groups),
        out(s.c_out / s.groups),
        padded_in((in + 7) / 8 * 8),
        padded_out((out + 7) / 8 * 8) {}
  bool needed() const { return in != padded_in || out != padded_out; }
  ConvShape shape(ConvShape unpadded) const {
    unpadded.c_in = groups * padded_in;
    unpadded.c_out = groups * padded_out;
    return unpadded;
  }
};

/// True if no copy is needed: with a 1x1 kernel KRSC and OIHW are the same order, and the weights are float already.
inline bool weights_used_in_place(const ConvShape& shape, DType type) {
  return type == DType::f32 && shape.kernel == 1;
}

/// Backend::can_add of a device: what is a product of operands as they lie in memory.
inline bool device_can_add(const ConvShape& shape, DType type) {
  return shape.is_matrix_product() && (type == DType::f32 || !PaddedWidths(shape).needed());
}

/// Bytes of one packed copy of the weights.
inline std::size_t packed_copy_bytes(const ConvShape& shape, DType type, bool padded) {
  const auto copied = padded ? PaddedWidths(shape).shape(shape) : shape;
  return static_cast<std::size_t>(copied.weight_elems()) * dtype_bytes(type);
}

}  // namespace seer::dnn
