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

#include "ahead.hpp"
#include "direct_conv.hpp"
#include "simd.hpp"

namespace seer::dnn::direct {

namespace {

constexpr int kTaps = kRegisters >= 32 ? 3 : 1;        // taps at a time if a group is one vector wide
constexpr int kWidestTile = kRegisters >= 32 ? 3 : 1;  // vectors of results at a time in wider groups
constexpr std::int64_t kSetBlocks = 8;                 // most blocks that are copied together: whole cache lines
constexpr std::int64_t kCompactInL2 = 256 << 10;       // bytes of their compact band
constexpr std::int64_t kImageInL2 = 384 << 10;
constexpr std::int64_t kAllWeightsInL2 = 256 << 10;

struct BandArgs {
  const float* x;  ///< compact buffer, first pixel of the first row
  const float* dy;
  std::int64_t rows, columns;
  std::int64_t x_row, dy_row, dy_pixel;  ///< in floats
  Ahead *next_x, *next_dy;
};

/// sums[T][8][V] += x (8 channels, at T taps) times dy (V vectors), over a band. Adds to `to`; strides in floats.
template <int T, int V>
void accumulate_band(const BandArgs& args, const std::int64_t* taps, float* to, std::int64_t tap_stride,
                     std::int64_t channel_stride) {
  V8 sum[T][kBlock][V];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[t][i][v] = V8{};
    }
  }
  for (std::int64_t row = 0; row < args.rows; ++row) {
    args.next_x->step<false>();
    args.next_dy->step<false>();
    const float* dy = args.dy + row * args.dy_row;
    const float* x[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) x[t] = args.x + row * args.x_row + taps[t];
    for (std::int64_t column = 0; column < args.columns; ++column, dy += args.dy_pixel) {
      V8 gradient[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) gradient[v] = load(dy + v * kBlock);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
        for (int i = 0; i < kBlock; ++i) {
          const float value = x[t][column * kBlock + i];
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[t][i][v] += value * gradient[v];
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* place = to + t * tap_stride + i * channel_stride + v * kBlock;
        store(place, load(place) + sum[t][i][v]);
      }
    }
  }
}

/// All taps and all results of one block of input channels, over one band. `to`: [tap][8][group_out].
void accumulate_block(const Geometry& g, const BandArgs& band, float* to) {
  const Pass& pass = g.passes.front();
  const auto count = static_cast<std::int64_t>(pass.taps.size());
  std::int64_t offsets[kLargestKernel * kLargestKernel];
  for (std::int64_t t = 0; t < count; ++t) {
    const Tap& tap = pass.taps[static_cast<std::size_t>(t)];
    offsets[t] = (tap.row - g.first_row) * g.compact_row() + tap.column * kBlock;
  }
  const std::int64_t tap_stride = kBlock * g.group_out;
  std::int64_t vectors = g.group_out / kBlock;
  BandArgs args = band;
  // Three vectors at a time, but 4 as 2 + 2 rather than 3 + 1.
  for (; vectors > 0;) {
    const std::int64_t v = kWidestTile < 3 ? 1 : vectors == 4 ? 2 : std::min<std::int64_t>(vectors, 3);
    for (std::int64_t t = 0; t < count;) {
      float* place = to + t * tap_stride;
      if (v == 1 && t + kTaps <= count) {
        accumulate_band<kTaps, 1>(args, offsets + t, place, tap_stride, g.group_out);
        t += kTaps;
        continue;
      }
      switch (v) {
        case 1:
          accumulate_band<1, 1>(args, offsets + t, place, tap_stride, g.group_out);
          break;
        case 2:
          accumulate_band<1, 2>(args, offsets + t, place, tap_stride, g.group_out);
          break;
        default:
          accumulate_band<1, 3>(args, offsets + t, place, tap_stride, g.group_out);
          break;
      }
      ++t;
    }
    args.dy += v * kBlock;
    to += v * kBlock;
    vectors -= v;
  }
}

/// Number of times that accumulate_block passes over a row.
std::int64_t steps_of_row(const Geometry& g) {
  const auto taps = static_cast<std::int64_t>(g.passes.front().taps.size());
  return std::max<std::int64_t>(1, g.group_out / kBlock / kWidestTile) * std::max<std::int64_t>(1, taps / kTaps);
}

/// [tap][8][group_out] to (part of) OIHW. kArea: the number of taps if known at compile time, else 0.
template <int kArea>
void unpack(const float* from, const Geometry& g, std::int64_t taps, bool add, float* to) {
  const std::int64_t area = kArea > 0 ? kArea : taps, tap_stride = kBlock * g.group_out;
  for (std::int64_t i = 0; i < kBlock; ++i) {
    for (std::int64_t o = 0; o < g.group_out; ++o) {
      const float* value = from + i * g.group_out + o;
      float* place = to + (o * g.group_in + i) * area;
      if (add) {
        for (std::int64_t t = 0; t < area; ++t) place[t] += value[t * tap_stride];
      } else {
        for (std::int64_t t = 0; t < area; ++t) place[t] = value[t * tap_stride];
      }
    }
  }
}

std::int64_t band_units(const Geometry& g) {
  const std::int64_t rows =
      std::min(kCompactInL2 / (g.compact_row() * kSetBlocks * 4), kImageInL2 / (g.in_w * g.in_c * 4));
  const std::int64_t units = std::clamp<std::int64_t>((rows - (g.last_row - g.first_row)) / g.row_step, 1, g.units);
  const std::int64_t bands = (g.units + units - 1) / units;
  return (g.units + bands - 1) / bands;
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
  const std::int64_t band = band_units(g);
  const auto stride = static_cast<std::size_t>((g.band_rows(band) * g.compact_row() * kSetBlocks + 63) / 64 * 64);
  const auto threads = static_cast<std::size_t>(omp_get_max_threads());
  auto* compact = static_cast<float*>(compact_.need(stride * sizeof(float) * threads));
  auto* gradient = static_cast<float*>(gradient_.need(static_cast<std::size_t>(s.weight_elems()) * sizeof(float)));
  if (space_ == device::Space::planned) return;

  const bool ask_ahead = s.n * 4 * (g.in_h * g.in_w * g.in_c + g.out_h * g.out_w * g.out_c) > kAheadFrom;
  const bool images_inside = s.weight_elems() * 4 > kAllWeightsInL2;

#pragma omp parallel
  {
    const std::int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
    const std::int64_t begin = tasks * thread / all, end = tasks * (thread + 1) / all;
    float* mine = compact + static_cast<std::size_t>(thread) * stride;
    std::memset(gradient + begin * task_floats, 0,
                static_cast<std::size_t>((end - begin) * task_floats) * sizeof(float));

    // A step: some tasks that are copied together, in one band. With few weights, all steps of a band follow each
    // other, so that the band is read once. With many weights, all bands of a set follow each other, so that its sums
    // stay cached.
    const std::int64_t sets = (end - begin + set - 1) / set, bands = (g.units + band - 1) / band;
    struct Step {
      std::int64_t first, last, n, unit, count;
    };
    const auto step_at = [&](std::int64_t index) {
      const std::int64_t first = begin + (images_inside ? index / (s.n * bands) : index % sets) * set;
      const std::int64_t place = images_inside ? index % (s.n * bands) : index / sets;
      const std::int64_t unit = place % bands * band;
      return Step{first, std::min(first + set, end), place / bands, unit, std::min(band, g.units - unit)};
    };
    for (std::int64_t index = 0; index < sets * s.n * bands; ++index) {
      const Step at = step_at(index);
      Ahead next_x, next_dy;
      if (ask_ahead && index + 1 < sets * s.n * bands) {
        const Step next = step_at(index + 1);
        const std::int64_t top = std::max<std::int64_t>(0, next.unit * g.row_step + g.first_row);
        const std::int64_t bottom = std::min(next.unit * g.row_step + g.first_row + g.band_rows(next.count), g.in_h);
        const std::int64_t group = next.first / blocks, end_group = (next.last - 1) / blocks + 1;
        const std::int64_t parts = at.count * (at.last - at.first) * steps_of_row(g);
        next_x = Ahead(src + (next.n * g.in_h + top) * g.in_w * g.in_c + next.first * kBlock, (bottom - top) * g.in_w,
                       (next.last - next.first) * kBlock, g.in_c, parts);
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
      if (area == 9) {
        unpack<9>(from, g, area, accumulate == Accumulate::yes, to);
      } else {
        unpack<0>(from, g, area, accumulate == Accumulate::yes, to);
      }
    }
  }
}

}  // namespace seer::dnn::direct
