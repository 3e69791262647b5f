// SPDX-License-Identifier: Apache-2.0
// Size of the device's packed copies of weights, for plans and for Backend::set_packed_weights_limit. Also available in
// host builds.
#pragma once

#include <cstddef>

#include "seer/base/dtype.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// Upper limit, in bytes, on the device's copies of one convolution's weights, for activations of `type`; 0 if the
/// weights are used in place. Does not depend on number or size of images. In half precision, if the channels of a
/// group are not a multiple of 8, there are two copies, one of them padded: each direction and crop size chooses one of
/// the two.
std::size_t packed_weight_bytes(const ConvShape& shape, DType type);

}  // namespace seer::dnn
