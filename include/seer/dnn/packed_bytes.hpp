// SPDX-License-Identifier: Apache-2.0
// What the device's packed copies of weights take, for plans and for Backend::set_packed_weights_limit. In host builds
// as well.
#pragma once

#include <cstddef>

#include "seer/base/dtype.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// Bytes that the device's copies of one convolution's weights take at most, for activations of `type`; 0 where the
/// weights are used in place. Images and their size do not count. Where a group's channels are no multiple of 8 it is
/// two copies in half precision, one of them padded: directions and crop sizes choose for themselves.
std::size_t packed_weight_bytes(const ConvShape& shape, DType type);

}  // namespace seer::dnn
