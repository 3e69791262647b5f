// SPDX-License-Identifier: Apache-2.0
// The direct convolution: backward to weights.
//
// A task is one block of 8 input channels of a group. Each thread has a range of tasks and goes through the images band
// by band with all of them. So a band is read from memory once, and no two threads add to the same weight: results do
// not depend on the number of threads. Sums stay in registers over a band and are then added to memory, which also
// keeps the rounding error of long sums low.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "bands.hpp"

namespace seer::dnn::direct {

namespace {

constexpr int kTaps = kRegisters >= 32 ? 3 : 1;        // taps at a time if one register holds the results
constexpr int kWidestTile = kRegisters >= 32 ? 3 : 1;  // registers of results at a time in wider groups
constexpr int kWidestBlocks = kWideVectors ? 2 * kWidestTile : kWidestTile;
constexpr std::int64_t kSetBlocks = 8;            // most blocks that are copied together: whole cache lines
constexpr std::int64_t kCompactInL2 = 256 << 10;  // bytes of their compact band

struct BandArgs {
  const float* x;  ///< compact buffer, first pixel of the first row
  const float* dy;
  std::int64_t rows, columns;
  std::int64_t x_row, dy_row, dy_pixel;  ///< in floats
  Ahead *next_x, *next_dy;
};

/// sums[T][8][channels] += x (8 channels, at T taps) times dy (W vectors of 16 results, then N of 8), over a band. Adds
/// to `to`; strides in floats.
template <int T, int W, int N>
void accumulate_band(const BandArgs& args, const std::int64_t* taps, float* to, std::int64_t tap_stride,
                     std::int64_t channel_stride) {
  constexpr int kWide = W > 0 ? W : 1, kNarrow = N > 0 ? N : 1;
  V16 wide[T][kBlock][kWide] = {};
  V8 narrow[T][kBlock][kNarrow] = {};
  for (std::int64_t row = 0; row < args.rows; ++row) {
    args.next_x->step<false>();
    args.next_dy->step<false>();
    const float* dy = args.dy + row * args.dy_row;
    const float* x[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) x[t] = args.x + row * args.x_row + taps[t];
    for (std::int64_t column = 0; column < args.columns; ++column, dy += args.dy_pixel) {
      V16 wide_gradient[kWide];
      V8 narrow_gradient[kNarrow];
#pragma GCC unroll 4
      for (int v = 0; v < W; ++v) wide_gradient[v] = load<V16>(dy + 2 * v * kBlock);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) narrow_gradient[v] = load(dy + (2 * W + v) * kBlock);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
        for (int i = 0; i < kBlock; ++i) {
          const float value = x[t][column * kBlock + i];
#pragma GCC unroll 4
          for (int v = 0; v < W; ++v) wide[t][i][v] += value * wide_gradient[v];
#pragma GCC unroll 4
          for (int v = 0; v < N; ++v) narrow[t][i][v] += value * narrow_gradient[v];
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
      float* const row = to + t * tap_stride + i * channel_stride;
#pragma GCC unroll 4
      for (int v = 0; v < W; ++v) store(row + 2 * v * kBlock, load<V16>(row + 2 * v * kBlock) + wide[t][i][v]);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) store(row + (2 * W + v) * kBlock, load(row + (2 * W + v) * kBlock) + narrow[t][i][v]);
    }
  }
}

using Accumulation = void (*)(const BandArgs&, const std::int64_t*, float*, std::int64_t, std::int64_t);
/// By blocks of results: one tap, and kTaps taps where all results fit one register.
constexpr Accumulation kOneTap[] = {
#if defined(__AVX512VL__)
    nullptr,
    accumulate_band<1, 0, 1>,
    accumulate_band<1, 1, 0>,
    accumulate_band<1, 1, 1>,
    accumulate_band<1, 2, 0>,
    accumulate_band<1, 2, 1>,
    accumulate_band<1, 3, 0>,
};
constexpr Accumulation kSeveralTaps[] = {nullptr, accumulate_band<kTaps, 0, 1>, accumulate_band<kTaps, 1, 0>};
#else
    nullptr,
    accumulate_band<1, 0, 1>,
};
constexpr Accumulation kSeveralTaps[] = {nullptr, accumulate_band<kTaps, 0, 1>};
#endif

/// All taps and all results of one block of input channels, over one band. `to`: [tap][8][group_out].
void accumulate_block(const Geometry& g, BandArgs args, float* to) {
  const std::int64_t* offsets = g.passes.front().offsets.data();
  const std::int64_t count = std::ssize(g.passes.front().taps), tap_stride = kBlock * g.group_out;
  for (std::int64_t blocks = g.group_out / kBlock; blocks > 0;) {
    const auto now = std::min<std::int64_t>(blocks, kWidestBlocks);
    for (std::int64_t t = 0; t < count;) {
      const bool several = now < std::ssize(kSeveralTaps) && t + kTaps <= count;
      const auto accumulate = (several ? kSeveralTaps : kOneTap)[now];
      accumulate(args, offsets + t, to + t * tap_stride, tap_stride, g.group_out);
      t += several ? kTaps : 1;
    }
    args.dy += now * kBlock;
    to += now * kBlock;
    blocks -= now;
  }
}

/// Number of times that accumulate_block passes over a row.
std::int64_t steps_of_row(const Geometry& g) {
  return std::max<std::int64_t>(1, g.group_out / kBlock / kWidestBlocks) *
         std::max<std::int64_t>(1, std::ssize(g.passes.front().taps) / kTaps);
}

/// [tap][8][group_out] to (part of) OIHW. kArea: the number of taps if known at compile time, else 0.
template <int kArea>
void unpack(const float* from, const Geometry& g, std::int64_t taps, bool add, float* to) {
  const std::int64_t area = kArea > 0 ? kArea : taps, tap_stride = kBlock * g.group_out;
  for (std::int64_t i = 0; i < kBlock; ++i) {
    for (std::int64_t o = 0; o < g.group_out; ++o) {
      const float* value = from + i * g.group_out + o;
      float* place = to + (o * g.group_in + i) * area;
      if (add)
        for (std::int64_t t = 0; t < area; ++t) place[t] += value[t * tap_stride];
      else
        for (std::int64_t t = 0; t < area; ++t) place[t] = value[t * tap_stride];
    }
  }
}

}  // namespace

void Conv::run_weights(const ConvShape& s, const float* src, const float* d_dst, float* d_weight,
                       Accumulate accumulate) {
  const Geometry g = forward_geometry(s);
  const std::int64_t area = s.kernel * s.kernel, blocks = g.group_in / kBlock, tasks = g.groups * blocks;
  const std::int64_t task_floats = area * kBlock * g.group_out;
  // Narrow groups: several whole groups per set. A wide group: equal parts of it.
  const std::int64_t set = blocks <= kSetBlocks
                               ? kSetBlocks / blocks * blocks
                               : (blocks + (blocks - 1) / kSetBlocks) / ((blocks - 1) / kSetBlocks + 1);
  const std::int64_t band =
      g.band_units(std::min(kCompactInL2 / (g.compact_row() * kSetBlocks * 4), kImageInL2 / (g.in_w * g.in_c * 4)));
  const auto stride = static_cast<std::size_t>((g.band_rows(band) * g.compact_row() * kSetBlocks + 63) / 64 * 64);
  const auto threads = static_cast<std::size_t>(omp_get_max_threads());
  auto* compact = static_cast<float*>(compact_.need(stride * sizeof(float) * threads));
  auto* gradient = static_cast<float*>(gradient_.need(static_cast<std::size_t>(s.weight_elems()) * sizeof(float)));
  if (space_ == device::Space::planned) return;

  const bool ask_ahead = asks_ahead(g, s.n);

#pragma omp parallel
  {
    const std::int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
    const std::int64_t begin = tasks * thread / all, end = tasks * (thread + 1) / all;
    float* mine = compact + static_cast<std::size_t>(thread) * stride;
    std::memset(gradient + begin * task_floats, 0,
                static_cast<std::size_t>((end - begin) * task_floats) * sizeof(float));

    const Parts steps{.begin = begin,
                      .end = end,
                      .set = set,
                      .images = s.n,
                      .units = g.units,
                      .band = band,
                      .sets_outside = s.weight_elems() * 4 > kAllWeightsInL2};
    for (std::int64_t index = 0; index < steps.count(); ++index) {
      const Part at = steps.at(index);
      Ahead next_x, next_dy;
      if (ask_ahead && index + 1 < steps.count()) {
        const Part next = steps.at(index + 1);
        const std::int64_t group = next.first / blocks, end_group = (next.last - 1) / blocks + 1;
        const std::int64_t parts = at.count * (at.last - at.first) * steps_of_row(g);
        next_x = ahead_of_input(g, next, src, kBlock, parts);
        next_dy = Ahead(d_dst + (next.n * g.out_h + next.unit) * g.out_w * g.out_c + group * g.group_out,
                        next.count * g.out_w, (end_group - group) * g.group_out, g.out_c, parts);
      }
      fill_compact(g, src + at.n * g.in_h * g.in_w * g.in_c, at.first * kBlock, at.last - at.first, at.unit, at.count,
                   mine);
      const float* dy = d_dst + (at.n * g.out_h + at.unit) * g.out_w * g.out_c;
      for (std::int64_t task = at.first; task < at.last; ++task) {
        const BandArgs args{.x = mine + (task - at.first) * g.band_rows(at.count) * g.compact_row(),
                            .dy = dy + task / blocks * g.group_out,
                            .rows = at.count,
                            .columns = g.out_w,
                            .x_row = g.row_step * g.compact_row(),
                            .dy_row = g.out_w * g.out_c,
                            .dy_pixel = g.out_c,
                            .next_x = &next_x,
                            .next_dy = &next_dy};
        accumulate_block(g, args, gradient + task * task_floats);
      }
    }
    for (std::int64_t task = begin; task < end; ++task) {
      const float* from = gradient + task * task_floats;
      float* to = d_weight + (task / blocks * g.group_out * g.group_in + task % blocks * kBlock) * area;
      (area == 9 ? unpack<9> : unpack<0>)(from, g, area, accumulate == Accumulate::yes, to);
    }
  }
}

}  // namespace seer::dnn::direct
