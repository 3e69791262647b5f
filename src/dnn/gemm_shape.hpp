// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c); a and b of `type`, c float; row-major, dense.
struct GemmShape {
  std::int64_t m = 1, n = 1, k = 1;
  Transpose ta = Transpose::no, tb = Transpose::no;
  DType type = DType::bf16;
  bool add = false;
  auto operator<=>(const GemmShape&) const = default;
};

}  // namespace seer::dnn
