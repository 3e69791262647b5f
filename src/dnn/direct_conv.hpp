// SPDX-License-Identifier: Apache-2.0
// Our own grouped convolution in NHWC, for group widths that are a multiple of 8. oneDNN has no fast path for narrow
// groups in this layout (16 to 60 of 115 GFLOP/s per core at width 8), and its fast path in a blocked layout would cost
// two reorders of the activations.
//
// The rows of a group are first copied, zero-padded, to a compact buffer: [block of 8 channels][row][column][8]. For a
// strided forward pass, columns with equal remainder lie together, so that neighbouring results always read
// neighbouring pixels. Forward and backward to data then have one form: results = sum over taps (offsets into the
// compact buffer) of pixel * matrix. A strided backward to data is stride^2 such passes, one for each remainder of the
// position.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "packed_weights.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn::direct {

constexpr std::int64_t kBlock = 8;  ///< channels of a block: one 256-bit vector

/// Position of one weight's pixel relative to a result's pixel, in the compact buffer.
struct Tap {
  std::int64_t row = 0;     ///< input rows below the first row of the result
  std::int64_t column = 0;  ///< pixels in the compact row, from its start
  std::int64_t kernel_y = 0, kernel_x = 0;
};

/// Results with the same taps: rows first_row + i * step, columns first_column + j * step.
struct Pass {
  std::int64_t first_row = 0, first_column = 0;
  std::int64_t rows = 0, columns = 0;
  std::vector<Tap> taps{};
  std::vector<std::int64_t> offsets{};  ///< of the taps in the compact buffer, from a result's first pixel, in floats
};

/// How an image is copied to the compact buffer, and where results go.
struct Geometry {
  std::int64_t in_h = 0, in_w = 0, in_c = 0, out_h = 0, out_w = 0, out_c = 0;
  std::int64_t group_in = 0, group_out = 0, groups = 1;  ///< channels per group
  std::int64_t phases = 1;                               ///< column remainders kept apart (forward: the stride)
  std::int64_t phase_columns = 0;                        ///< compact pixels per phase, padding included
  std::int64_t left = 0;                                 ///< how many of them are padding on the left
  std::int64_t row_step = 1;                             ///< input rows from one result row to the next
  std::int64_t out_step = 1;                 ///< distance of neighbouring results within a pass (backward: the stride)
  std::int64_t first_row = 0, last_row = 0;  ///< smallest and largest Tap::row
  std::int64_t units = 0;                    ///< result rows of the tallest pass
  std::vector<Pass> passes{};

  std::int64_t compact_row() const { return phases * phase_columns * kBlock; }
  std::int64_t band_rows(std::int64_t units_of_band) const {
    return (units_of_band - 1) * row_step + last_row - first_row + 1;
  }
  /// Units of a band of at most `most_rows` rows (one unit at least), so that all bands are about equal.
  std::int64_t band_units(std::int64_t most_rows) const;
};

Geometry forward_geometry(const ConvShape& shape);
Geometry backward_data_geometry(const ConvShape& shape);

/// Copies the input rows for results [unit, unit + count) of one image: `blocks` blocks of 8 channels from `channel`
/// on.
void fill_compact(const Geometry& geometry, const float* image, std::int64_t channel, std::int64_t blocks,
                  std::int64_t unit, std::int64_t count, float* compact);

/// True if these kernels can run the shape.
bool can_run(const ConvShape& shape);
/// True if they can and are faster. Depends only on the shape and on the processor that the program was built for.
bool fits(Direction direction, const ConvShape& shape);

/// Forward and backward to data.
class Conv {
 public:
  /// Space::planned: requests memory but runs nothing.
  explicit Conv(device::Space space = device::Space::host) : space_(space), compact_(space), gradient_(space) {}
  void run(Direction direction, const ConvShape& shape, const float* input, Weights weights, PackedWeights& packed,
           float* output);
  void run_weights(const ConvShape& shape, const float* src, const float* d_dst, float* d_weight,
                   Accumulate accumulate);
  std::size_t held_bytes() const { return compact_.bytes() + gradient_.bytes(); }

 private:
  using Layout = std::array<std::int64_t, 7>;
  int layout_of(Direction direction, const ConvShape& shape);

  device::Space space_;
  std::vector<Layout> layouts_;
  Scratch compact_, gradient_;
};

}  // namespace seer::dnn::direct
