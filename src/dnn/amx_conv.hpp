// SPDX-License-Identifier: Apache-2.0
// Our own bf16 convolutions for processors with matrix units, in NHWC, for groups of any width. oneDNN 2 uses the units
// in few backward passes (docs/roofline.md, "On the host").
//
// Forward and backward to data have one form: results = sum over runs of (a run of neighbouring values) x (a matrix).
// The values of a group are copied to a compact buffer, zero-padded, so that all taps in a row of the kernel are one
// run; 1x1 convolutions read the tensor itself. A strided backward to data is stride^2 such passes, one for each
// remainder of the position; for a strided forward pass, rows of equal remainder lie together (a plane). In the buffer,
// all images' pixels follow each other at the pitch of a padded row, so that tiles of 16 results need not end with a
// row: results that belong to the padding are computed and dropped.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gemm_shape.hpp"
#include "packed_weights.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn::amx {

/// Neighbouring values of the compact buffer that meet one matrix: `taps` of the kernel, in the buffer's order.
struct Run {
  std::int64_t plane = 0, row = 0, column = 0;  ///< of its first pixel; row and column from the result's
  struct Tap {
    std::int64_t y, x;
  };
  std::vector<Tap> taps{};
};

/// Results with the same runs: rows first_row + i * step, columns first_column + j * step.
struct Pass {
  std::int64_t first_row = 0, first_column = 0, rows = 0, columns = 0;
  std::vector<Run> runs{};
};

/// How values lie in the compact buffer, and where results go. Row r and column c of a plane hold the pixel in row
/// r * row_step + plane - top and column c * column_step - left, or zeros.
struct Geometry {
  bool in_place = false;  ///< the tensor is the buffer
  std::int64_t n = 0, in_h = 0, in_w = 0, in_c = 0, out_h = 0, out_w = 0, out_c = 0;
  std::int64_t groups = 1, group_in = 0, group_out = 0, kernel = 1;
  std::int64_t joined = 1;  ///< narrow groups of the convolution that are one group here; weights between them are 0
  std::int64_t out_step = 1;
  std::int64_t planes = 1, row_step = 1, column_step = 1, top = 0, left = 0;
  std::int64_t image_rows = 0;  ///< of one image in the buffer; the padding behind it is that before the next one
  std::int64_t pitch = 0;       ///< results of a row, with those of the padding
  std::int64_t pixels = 1;      ///< of the buffer from one result to the next
  std::vector<Pass> passes{};

  std::int64_t rows() const { return n * image_rows; }
  std::int64_t row_values() const { return pitch * pixels * group_in; }
  /// Rows of the buffer behind that of a result which its runs reach.
  std::int64_t halo() const;
  /// Values behind the buffer's last row that its runs reach: zeros.
  std::int64_t tail() const;
};

Geometry geometry(Direction direction, const ConvShape& shape);

constexpr int kFirstLayout = -1'000'000;  ///< of packed weights; others' are above

/// How many groups are computed as one: full tiles are worth more than the products with zeros.
std::int64_t joined_groups(const ConvShape& shape);

/// True if these kernels can run the shape on this processor.
bool can_run(const ConvShape& shape, DType type);
/// True if they can and are faster than oneDNN 2 (`seer bench conv`): in all backward passes, and forward in 1x1
/// convolutions, but not where few channels fill a small part of a tile. Depends only on the shape.
bool fits(Direction direction, const ConvShape& shape, DType type);

class Conv {
 public:
  /// Space::planned: requests memory but runs nothing.
  explicit Conv(device::Space space = device::Space::host) : space_(space), scratch_(space), gradient_(space) {}
  /// Forward and backward to data. Accumulate::yes: adds to the output before it is rounded.
  void run(Direction direction, const ConvShape& shape, const void* input, Weights weights, PackedWeights& packed,
           void* output, Accumulate accumulate = Accumulate::no);
  void run_weights(const ConvShape& shape, const void* src, const void* d_dst, float* d_weight, Accumulate accumulate);
  /// False, and nothing happens, if oneDNN is as fast or the product is of another kind: here are bf16 products with
  /// few rows, or with the first operand transposed.
  bool multiply_matrices(const GemmShape& shape, const void* a, const void* b, float* c);
  std::size_t held_bytes() const { return scratch_.bytes() + gradient_.bytes(); }

 private:
  using Layout = std::array<std::int64_t, 9>;
  int layout_of(Direction direction, const ConvShape& shape);

  device::Space space_;
  std::vector<Layout> layouts_;
  Scratch scratch_, gradient_;
};

}  // namespace seer::dnn::amx
