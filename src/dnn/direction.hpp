// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace seer::dnn {

enum class Direction : std::uint8_t { forward, backward_data, backward_weights };

}  // namespace seer::dnn
