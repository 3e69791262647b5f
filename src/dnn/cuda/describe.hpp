// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>

#include "../direction.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

inline const char* title(Direction direction) {
  return direction == Direction::forward         ? "convolution forward"
         : direction == Direction::backward_data ? "convolution backward to data"
                                                 : "convolution backward to weights";
}

/// Same format as in the host's back end.
inline std::string shape_text(Direction direction, const ConvShape& s) {
  return fmt::format("{} n {} h {} w {} channels {} -> {} kernel {} stride {} pad {} groups {}", title(direction), s.n,
                     s.h, s.w, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups);
}

}  // namespace seer::dnn
