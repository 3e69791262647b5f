// SPDX-License-Identifier: Apache-2.0
#include "seer/dnn/packed_bytes.hpp"

#include "padded_widths.hpp"

namespace seer::dnn {

std::size_t packed_weight_bytes(const ConvShape& shape, DType type) {
  if (weights_used_in_place(shape, type)) return 0;
  const bool padded = type != DType::f32 && PaddedWidths(shape).needed();
  return packed_copy_bytes(shape, type, false) + (padded ? packed_copy_bytes(shape, type, true) : 0);
}

}  // namespace seer::dnn
