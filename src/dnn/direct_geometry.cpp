// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "bands.hpp"

namespace seer::dnn::direct {

namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

Geometry between(const device::Shape& in, const device::Shape& out, std::int64_t groups) {
  return {.in_h = in.h,
          .in_w = in.w,
          .in_c = in.c,
          .out_h = out.h,
          .out_w = out.w,
          .out_c = out.c,
          .group_in = in.c / groups,
          .group_out = out.c / groups,
          .groups = groups};
}

void finish(Geometry& g) {
  g.first_row = g.passes.front().taps.front().row;
  g.last_row = g.first_row;
  for (const Pass& pass : g.passes) {
    g.units = std::max(g.units, pass.rows);
    for (const Tap& tap : pass.taps) {
      g.first_row = std::min(g.first_row, tap.row);
      g.last_row = std::max(g.last_row, tap.row);
    }
  }
  for (Pass& pass : g.passes)
    for (const Tap& tap : pass.taps)
      pass.offsets.push_back((tap.row - g.first_row) * g.compact_row() + tap.column * kBlock);
}

}  // namespace

// dst[oy, ox] += src[oy * stride + ky - pad, ox * stride + kx - pad] * w[ky, kx]
Geometry forward_geometry(const ConvShape& s) {
  Geometry g = between(s.src(), s.dst(), s.groups);
  g.phases = s.stride;
  g.row_step = s.stride;
  g.left = -floor_div(-s.pad, s.stride);
  g.phase_columns = g.left + g.out_w + floor_div(s.kernel - 1 - s.pad, s.stride);
  Pass pass{.rows = g.out_h, .columns = g.out_w};
  for (std::int64_t ky = 0; ky < s.kernel; ++ky) {
    for (std::int64_t kx = 0; kx < s.kernel; ++kx) {
      const std::int64_t shift = floor_div(kx - s.pad, s.stride);
      const std::int64_t phase = kx - s.pad - shift * s.stride;
      pass.taps.push_back({ky - s.pad, phase * g.phase_columns + g.left + shift, ky, kx});
    }
  }
  g.passes.push_back(std::move(pass));
  finish(g);
  return g;
}

// d_src[y, x] += d_dst[(y + pad - ky) / stride, (x + pad - kx) / stride] * w[ky, kx] if both divisions are exact
Geometry backward_data_geometry(const ConvShape& s) {
  Geometry g = between(s.dst(), s.src(), s.groups);
  g.out_step = s.stride;
  // Pixels that a tap of any pass may need left of the image's first pixel and right of its last.
  g.left = -floor_div(s.pad - (s.kernel - 1), s.stride);
  const std::int64_t most = floor_div(s.stride - 1 + s.pad, s.stride);
  g.phase_columns = g.left + (s.w + s.stride - 1) / s.stride + most;
  for (std::int64_t py = 0; py < s.stride; ++py) {
    for (std::int64_t px = 0; px < s.stride; ++px) {
      Pass pass{.first_row = py, .first_column = px};
      pass.rows = (s.h - py + s.stride - 1) / s.stride;
      pass.columns = (s.w - px + s.stride - 1) / s.stride;
      for (std::int64_t ky = 0; ky < s.kernel; ++ky) {
        for (std::int64_t kx = 0; kx < s.kernel; ++kx) {
          const std::int64_t y = py + s.pad - ky, x = px + s.pad - kx;
          if (y % s.stride != 0 || x % s.stride != 0) continue;
          pass.taps.push_back({y / s.stride, g.left + x / s.stride, ky, kx});
        }
      }
      g.passes.push_back(std::move(pass));
    }
  }
  finish(g);
  return g;
}

std::int64_t Geometry::band_units(std::int64_t most_rows) const {
  const std::int64_t most = std::clamp<std::int64_t>((most_rows - (last_row - first_row)) / row_step, 1, units);
  const std::int64_t bands = (units + most - 1) / most;
  return (units + bands - 1) / bands;
}

void fill_compact(const Geometry& g, const float* image, std::int64_t channel, std::int64_t blocks, std::int64_t unit,
                  std::int64_t count, float* compact) {
  const std::int64_t rows = g.band_rows(count), row_floats = g.compact_row(), block_floats = rows * row_floats;
  const std::int64_t top = unit * g.row_step + g.first_row;
  const auto clear = [&](float* to, std::int64_t pixels) {
    for (std::int64_t block = 0; block < blocks; ++block)
      std::memset(to + block * block_floats, 0, static_cast<std::size_t>(pixels * kBlock) * sizeof(float));
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t y = top + r;
    float* to = compact + r * row_floats;
    if (y < 0 || y >= g.in_h) {
      clear(to, g.phases * g.phase_columns);
      continue;
    }
    const float* row = image + y * g.in_w * g.in_c + channel;
    for (std::int64_t phase = 0; phase < g.phases; ++phase, to += g.phase_columns * kBlock) {
      // Image column of compact pixel j: (j - left) * phases + phase.
      const std::int64_t columns = std::max<std::int64_t>(0, (g.in_w - phase + g.phases - 1) / g.phases);
      const std::int64_t end = std::min(g.phase_columns, g.left + columns);
      clear(to, g.left);
      clear(to + end * kBlock, g.phase_columns - end);
      for (std::int64_t j = g.left; j < end; ++j) {
        // All channels of a pixel at once: whole cache lines, in memory order.
        const float* from = row + ((j - g.left) * g.phases + phase) * g.in_c;
        float* pixel = to + j * kBlock;
        for (std::int64_t block = 0; block < blocks; ++block)
          store(pixel + block * block_floats, load(from + block * kBlock));
      }
    }
  }
}

}  // namespace seer::dnn::direct
