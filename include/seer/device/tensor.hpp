// SPDX-License-Identifier: Apache-2.0
// A tensor is a plain view: pointer, NHWC shape, element type, memory space. It owns nothing.
#pragma once

#include <compare>
#include <cstdint>

#include "seer/base/dtype.hpp"

namespace seer::device {

enum class Space : std::uint8_t {
  host,
  device,
  planned,  ///< memory that is counted but does not exist (device/ledger.hpp)
};

/// NHWC: c is the fastest index. A matrix [rows, columns] is {n = rows, c = columns}.
struct Shape {
  std::int64_t n = 1, h = 1, w = 1, c = 1;
  std::int64_t rows() const { return n * h * w; }
  std::int64_t elems() const { return n * h * w * c; }
  auto operator<=>(const Shape&) const = default;
};

struct Tensor {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  Space space = Space::host;

  float* f32() const { return static_cast<float*>(data); }
  std::int64_t rows() const { return shape.rows(); }
  std::int64_t elems() const { return shape.elems(); }
  std::int64_t bytes() const { return elems() * static_cast<std::int64_t>(dtype_bytes(dtype)); }
  /// Images [first, first + count) of this tensor.
  Tensor slice(std::int64_t first, std::int64_t count) const {
    Tensor part = *this;
    part.shape.n = count;
    part.data =
        static_cast<char*>(data) + first * shape.h * shape.w * shape.c * static_cast<std::int64_t>(dtype_bytes(dtype));
    return part;
  }
  explicit operator bool() const { return data != nullptr; }
};

/// A view of `count` floats.
inline Tensor view(float* values, std::int64_t count, Space space) {
  return {.data = values, .shape = {1, 1, 1, count}, .dtype = DType::f32, .space = space};
}

}  // namespace seer::device
