// SPDX-License-Identifier: Apache-2.0
#include "amx.hpp"
#include "amx_conv.hpp"
#include "seer/base/error.hpp"

#include <algorithm>

#if defined(SEER_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace seer::dnn::amx {

bool available() {
#if defined(SEER_AMX)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h, and the state's number in XCR0
  static const bool found = has_bf16_matrix_units() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return found;
#else
  return false;
#endif
}

std::int64_t joined_groups(const ConvShape& s) {
  std::int64_t joined = 1;
  for (std::int64_t i = 2; i <= s.groups && i * std::max(s.c_in, s.c_out) <= kDepth * s.groups; ++i)
    if (s.groups % i == 0) joined = i;
  return joined;
}

bool can_run(const ConvShape& s, DType type) {
  return type == DType::bf16 && available() && (s.kernel >= s.stride || s.kernel == 1) && s.pad < s.kernel;
}

bool fits(Direction direction, const ConvShape& s, DType type) {
  if (!can_run(s, type) || s.c_in / s.groups * joined_groups(s) < kRows) return false;
  return direction != Direction::forward || (s.groups == 1 && s.c_in >= 2 * kDepth);
}

namespace {

/// Positions along one axis for results `remainder + i * stride` of a backward pass: for each tap the pixel of the
/// source of i = 0, ascending.
std::vector<std::pair<std::int64_t, std::int64_t>> taps_of(std::int64_t remainder, const ConvShape& s) {
  std::vector<std::pair<std::int64_t, std::int64_t>> taps;  // {position, tap}
  for (std::int64_t k = s.kernel - 1; k >= 0; --k)
    if ((remainder + s.pad - k) % s.stride == 0) taps.emplace_back((remainder + s.pad - k) / s.stride, k);
  return taps;
}

/// Pitch of `results` whose taps read up to `reach` pixels, of which `left` are zeros before the first one: what lies
/// behind the last pixel of one row is the padding of the next.
std::int64_t pitch_of(std::int64_t results, std::int64_t pixels, std::int64_t left, std::int64_t reach) {
  return std::max({results, std::min(pixels + left, reach), reach - left});
}

void set_forward(Geometry& g, const ConvShape& s) {
  g.planes = std::min(s.stride, s.kernel);
  g.row_step = s.stride;
  g.top = g.left = s.pad;
  g.column_step = s.kernel == 1 ? s.stride : 1;
  g.pixels = s.kernel == 1 ? 1 : s.stride;
  for (std::int64_t plane = 0; plane < g.planes; ++plane) {
    const std::int64_t zeros = std::max<std::int64_t>((s.pad - plane + s.stride - 1) / s.stride, 0);
    const std::int64_t rows = (s.h - 1 + s.pad - plane) / s.stride + 1 - zeros;
    g.image_rows = std::max(g.image_rows, pitch_of(g.out_h, rows, zeros, g.out_h + (s.kernel - 1 - plane) / s.stride));
  }
  g.pitch = s.kernel == 1
                ? g.out_w
                : (pitch_of(g.out_w, s.w, s.pad, (g.out_w - 1) * s.stride + s.kernel) + s.stride - 1) / s.stride;
  Pass pass{.rows = g.out_h, .columns = g.out_w};
  for (std::int64_t y = 0; y < s.kernel; ++y) {
    Run run{.plane = y % s.stride, .row = y / s.stride};
    for (std::int64_t x = 0; x < s.kernel; ++x) run.taps.push_back({y, x});
    pass.runs.push_back(run);
  }
  g.passes = {pass};
}

void set_backward(Geometry& g, const ConvShape& s) {
  g.out_step = s.stride;
  std::int64_t row_reach = 0, column_reach = 0;
  for (std::int64_t first_row = 0; first_row < std::min(s.stride, s.h); ++first_row) {
    for (std::int64_t first_column = 0; first_column < std::min(s.stride, s.w); ++first_column) {
      Pass pass{.first_row = first_row,
                .first_column = first_column,
                .rows = (s.h - first_row - 1) / s.stride + 1,
                .columns = (s.w - first_column - 1) / s.stride + 1};
      const auto columns = taps_of(first_column, s);
      for (const auto& [row, y] : taps_of(first_row, s)) {
        if (columns.empty()) continue;
        Run run{.row = row, .column = columns.front().first};
        for (const auto& [column, x] : columns) run.taps.push_back({y, x});
        pass.runs.push_back(run);
        g.top = std::max(g.top, -row);
        g.left = std::max(g.left, -run.column);
        row_reach = std::max(row_reach, pass.rows + row);
        column_reach = std::max(column_reach, pass.columns + columns.back().first);
      }
      g.pitch = std::max(g.pitch, pass.columns);
      g.image_rows = std::max(g.image_rows, pass.rows);
      g.passes.push_back(pass);
    }
  }
  for (Pass& pass : g.passes) {
    for (Run& run : pass.runs) {
      run.row += g.top;
      run.column += g.left;
    }
  }
  g.pitch = pitch_of(g.pitch, g.in_w, g.left, column_reach + g.left);
  g.image_rows = pitch_of(g.image_rows, g.in_h, g.top, row_reach + g.top);
}

}  // namespace

std::int64_t Geometry::halo() const {
  std::int64_t most = 0;
  for (const Pass& pass : passes)
    for (const Run& run : pass.runs) most = std::max(most, run.row);
  return most;
}

std::int64_t Geometry::tail() const {
  std::int64_t most = 0;
  for (const Pass& pass : passes)
    for (const Run& run : pass.runs) most = std::max(most, run.column + std::ssize(run.taps) - pixels);
  return most * group_in + kDepth;  // and the last step of a run may read on
}

Geometry geometry(Direction direction, const ConvShape& s) {
  const bool forward = direction == Direction::forward;
  Geometry g;
  g.n = s.n;
  g.in_h = forward ? s.h : s.out_h();
  g.in_w = forward ? s.w : s.out_w();
  g.in_c = forward ? s.c_in : s.c_out;
  g.out_h = forward ? s.out_h() : s.h;
  g.out_w = forward ? s.out_w() : s.w;
  g.out_c = forward ? s.c_out : s.c_in;
  g.joined = joined_groups(s);
  g.groups = s.groups / g.joined;
  g.group_in = g.in_c / g.groups;
  g.group_out = g.out_c / g.groups;
  g.kernel = s.kernel;
  (forward ? set_forward : set_backward)(g, s);
  g.in_place = s.kernel == 1 && s.groups == 1 && g.column_step == 1 && g.pitch == g.in_w && g.image_rows == g.in_h;
  return g;
}

#if !defined(SEER_AMX)
void Conv::run(Direction, const ConvShape&, const void*, Weights, PackedWeights&, void*, Accumulate) {
  ensure(false, "no matrix units on this kind of processor");
}
void Conv::run_weights(const ConvShape&, const void*, const void*, float*, Accumulate) {
  ensure(false, "no matrix units on this kind of processor");
}
bool Conv::multiply_matrices(const GemmShape&, const void*, const void*, float*) {
  return false;
}
#endif

}  // namespace seer::dnn::amx
