// SPDX-License-Identifier: Apache-2.0
// The direct convolution: forward and backward to data.
#include "direct_conv.hpp"

#include <omp.h>

#include <algorithm>
#include <array>

#include "bands.hpp"

namespace seer::dnn::direct {

namespace {

constexpr int kMostVectors = 4;  // blocks of results per pixel in one tile
constexpr int kMostPixels = 14;  // 224 / 2^i is a multiple of 14 or 7

/// Registers for V blocks: wide ones hold two.
constexpr int wide_of(int vectors) {
  return kWideVectors ? vectors / 2 : 0;
}
constexpr int narrow_of(int vectors) {
  return vectors - 2 * wide_of(vectors);
}

// Accumulators, the weights' vectors and one pixel's broadcast value must fit the registers.
constexpr int most_pixels(int vectors) {
  const int registers = wide_of(vectors) + narrow_of(vectors);
  return std::min(kMostPixels, (kRegisters - 1 - registers) / registers);
}

/// Arguments of a tile, except its place.
struct TileArgs {
  const std::int64_t* taps;  ///< offsets from the first pixel, in floats
  std::int64_t tap_count, blocks, block_stride;
  const float* weights;  ///< [tap][block][8][V * 8]
  std::int64_t out_stride;
  bool add;
};

/// Accumulators of P pixels in registers of one kind, for N registers a pixel that hold channels from `channel` on.
template <class V, int P, int N>
struct Sums {
  static constexpr int kFloats = sizeof(V) / sizeof(float);
  V sum[P][N > 0 ? N : 1];

  void begin(const TileArgs& args, const float* out) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[p][v] = args.add ? load<V>(out + p * args.out_stride + v * kFloats) : V{};
    }
  }
  void end(const TileArgs& args, float* out) const {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) store(out + p * args.out_stride + v * kFloats, sum[p][v]);
    }
  }
};

/// P neighbouring pixels by V * 8 channels of results.
template <int V, int P>
void tile(const TileArgs& args, const float* in, float* out) {
  constexpr int kWide = wide_of(V), kNarrow = narrow_of(V);
  Sums<V16, P, kWide> wide;
  Sums<V8, P, kNarrow> narrow;
  wide.begin(args, out);
  narrow.begin(args, out + 2 * kWide * kBlock);
  const float* w = args.weights;
  for (std::int64_t t = 0; t < args.tap_count; ++t) {
    const float* x = in + args.taps[t];
    for (std::int64_t b = 0; b < args.blocks; ++b, x += args.block_stride) {
#pragma GCC unroll 4
      for (int i = 0; i < kBlock; ++i, w += V * kBlock) {
        V16 wide_weight[kWide > 0 ? kWide : 1];
        V8 narrow_weight[kNarrow > 0 ? kNarrow : 1];
#pragma GCC unroll 4
        for (int v = 0; v < kWide; ++v) wide_weight[v] = load<V16>(w + 2 * v * kBlock);
#pragma GCC unroll 4
        for (int v = 0; v < kNarrow; ++v) narrow_weight[v] = load(w + (2 * kWide + v) * kBlock);
#pragma GCC unroll 16
        for (int p = 0; p < P; ++p) {
          const float value = x[p * kBlock + i];
#pragma GCC unroll 4
          for (int v = 0; v < kWide; ++v) wide.sum[p][v] += value * wide_weight[v];
#pragma GCC unroll 4
          for (int v = 0; v < kNarrow; ++v) narrow.sum[p][v] += value * narrow_weight[v];
        }
      }
    }
  }
  wide.end(args, out);
  narrow.end(args, out + 2 * kWide * kBlock);
}

using Tile = void (*)(const TileArgs&, const float*, float*);
using Tiles = std::array<Tile, kMostPixels + 1>;  // by number of pixels

template <int V, int... P>
constexpr Tiles tiles_of(std::integer_sequence<int, P...>) {
  return {nullptr, (P + 1 <= most_pixels(V) ? &tile<V, (P + 1 <= most_pixels(V) ? P + 1 : 1)> : nullptr)...};
}

constexpr auto kPixels = std::make_integer_sequence<int, kMostPixels>();
constexpr Tiles kTiles[] = {{}, tiles_of<1>(kPixels), tiles_of<2>(kPixels), tiles_of<3>(kPixels), tiles_of<4>(kPixels)};

/// Splits n into the fewest parts of at most `most`, as equal as possible. begin(i): first element of part i.
struct Split {
  std::int64_t n, parts;
  Split(std::int64_t total, std::int64_t most) : n(total), parts((total + most - 1) / most) {}
  std::int64_t begin(std::int64_t i) const { return n / parts * i + std::min(i, n % parts); }
};

constexpr std::int64_t kWeightsInL1 = 16 << 10;   // bytes of weights that stay in the first-level cache with a row
constexpr std::int64_t kCompactInL2 = 192 << 10;  // bytes of the compact buffer
constexpr std::int64_t kSetChannels = 64;         // channels of narrow groups copied together
constexpr std::int64_t kLargestKernel = 8;        // side

std::int64_t band_units(const Geometry& g, std::int64_t set) {
  const std::int64_t compact_row = g.compact_row() * set * (g.group_in / kBlock) * 4;
  const std::int64_t image_row = std::max(g.in_w * g.in_c, g.out_step * g.out_step * g.out_w * g.out_c) * 4;
  return g.band_units(std::min(kCompactInL2 / compact_row, kImageInL2 / image_row));
}

/// Layout: [group][tile of channels][pass][tap][input channel][channels of the tile].
void pack(const Geometry& g, Direction direction, std::int64_t kernel, const float* weights, float* packed) {
  const Split tiles(g.group_out / kBlock, kMostVectors);
  const bool forward = direction == Direction::forward;
  const std::int64_t area = kernel * kernel;
#pragma omp parallel for
  for (std::int64_t group = 0; group < g.groups; ++group) {
    float* to = packed + group * g.group_in * g.group_out * area;
    for (std::int64_t t = 0; t < tiles.parts; ++t) {
      for (const Pass& pass : g.passes) {
        for (const Tap& tap : pass.taps) {
          for (std::int64_t i = 0; i < g.group_in; ++i) {
            for (std::int64_t o = tiles.begin(t) * kBlock; o < tiles.begin(t + 1) * kBlock; ++o) {
              // OIHW. Forward: o is an output channel; backward: o is an input channel.
              const std::int64_t row = forward ? group * g.group_out + o : group * g.group_in + i;
              const std::int64_t column = forward ? i : o;
              *to++ = weights[(row * (forward ? g.group_in : g.group_out) + column) * area + tap.kernel_y * kernel +
                              tap.kernel_x];
            }
          }
        }
      }
    }
  }
}

/// Computes all results of one pass over one band of one group.
void run_pass(const Geometry& g, const Pass& pass, std::int64_t unit, std::int64_t end, std::int64_t rows,
              const float* compact, const float* weights, int vectors, float* out, Ahead& ahead_in, Ahead& ahead_out) {
  const std::int64_t blocks = g.group_in / kBlock;
  const std::int64_t tap_floats = g.group_in * vectors * kBlock;
  // Wide groups: a few taps at a time over the whole band keep their weights in the first-level cache.
  const Split chunks(std::ssize(pass.taps), std::max<std::int64_t>(1, kWeightsInL1 / (tap_floats * 4)));
  const Split pixels(pass.columns, most_pixels(vectors));
  for (std::int64_t chunk = 0; chunk < chunks.parts; ++chunk) {
    const std::int64_t first = chunks.begin(chunk);
    const TileArgs args{.taps = pass.offsets.data() + first,
                        .tap_count = chunks.begin(chunk + 1) - first,
                        .blocks = blocks,
                        .block_stride = rows * g.compact_row(),
                        .weights = weights + first * tap_floats,
                        .out_stride = g.out_step * g.out_c,
                        .add = chunk > 0};
    for (std::int64_t i = unit; i < end; ++i) {
      const float* in = compact + (i - unit) * g.row_step * g.compact_row();
      float* to = out + ((pass.first_row + i * g.out_step) * g.out_w + pass.first_column) * g.out_c;
      for (std::int64_t part = 0; part < pixels.parts; ++part) {
        const std::int64_t x = pixels.begin(part);
        const auto count = static_cast<std::size_t>(pixels.begin(part + 1) - x);
        kTiles[static_cast<std::size_t>(vectors)][count](args, in + x * kBlock, to + x * args.out_stride);
        ahead_in.step<false>();
        ahead_out.step<true>();
      }
    }
  }
}

}  // namespace

bool can_run(const ConvShape& s) {
  const std::int64_t in = s.c_in / s.groups, out = s.c_out / s.groups;
  return kVectors && s.groups * in == s.c_in && s.groups * out == s.c_out && in % kBlock == 0 && out % kBlock == 0 &&
         s.kernel > 1 && s.kernel <= kLargestKernel && s.kernel >= s.stride && s.pad < s.kernel;
}

// Measured on a Zen 4 core (`seer bench conv`). oneDNN always computes 16 channels at a time, so others waste some.
bool fits(Direction direction, const ConvShape& s) {
  if (s.groups == 1 || !can_run(s)) return false;
  const std::int64_t width = s.c_out / s.groups;
  const std::int64_t image_bytes = 4 * s.h * s.w * s.c_in;
  const bool strided = s.stride > 1;
  if (width % 16 == 0) {
    // Nothing is wasted. Only strided backward to weights from memory is slow: half of what it reads is unused.
    return direction == Direction::backward_weights && strided && image_bytes > (2 << 20);
  }
  if (width > 96) return false;  // with 112 channels or more, 8 wasted ones are too few to matter
  if (width > 8 || direction == Direction::backward_weights) return true;
  // Width 8: the library's unrolled code is a little better while the image is in the cache.
  return strided && image_bytes > 1250000;
}

// Everything that packing depends on. Not the image: all crop sizes share a copy.
int Conv::layout_of(Direction direction, const ConvShape& s) {
  const Layout wanted = {direction == Direction::forward, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups};
  auto found = std::find(layouts_.begin(), layouts_.end(), wanted);
  if (found == layouts_.end()) found = layouts_.insert(found, wanted);
  return -1 - static_cast<int>(found - layouts_.begin());  // the library's own layouts are 0, 1, ...
}

void Conv::run(Direction direction, const ConvShape& s, const float* input, Weights weights, PackedWeights& packed,
               float* output) {
  const Geometry g = direction == Direction::forward ? forward_geometry(s) : backward_data_geometry(s);
  const auto weight_bytes = static_cast<std::size_t>(s.weight_elems()) * sizeof(float);
  const auto* w =
      static_cast<const float*>(packed.get(weights, layout_of(direction, s), weight_bytes, [&](void* memory) {
        pack(g, direction, s.kernel, static_cast<const float*>(weights.data), static_cast<float*>(memory));
      }));

  // Narrow groups share cache lines: one task computes several groups, and all groups of a band follow each other. Wide
  // groups have many weights: these stay in the cache while all images pass.
  const bool groups_outside = weight_bytes > kAllWeightsInL2;
  const std::int64_t set = groups_outside ? 1 : std::clamp<std::int64_t>(kSetChannels / g.group_in, 1, g.groups);
  const std::int64_t band = band_units(g, set);
  const Parts parts{
      .end = g.groups, .set = set, .images = s.n, .units = g.units, .band = band, .sets_outside = groups_outside};
  const std::int64_t blocks = g.group_in / kBlock;
  const std::int64_t compact_floats = g.band_rows(band) * g.compact_row() * blocks * set;
  const auto stride = static_cast<std::size_t>((compact_floats + 63) / 64 * 64);
  auto* compact =
      static_cast<float*>(compact_.need(stride * sizeof(float) * static_cast<std::size_t>(omp_get_max_threads())));
  if (space_ == device::Space::planned) return;
  const Split tiles(g.group_out / kBlock, kMostVectors);
  const std::int64_t area = s.kernel * s.kernel, tasks = parts.count();

  std::int64_t tiles_of_task = 0;
  for (const Pass& pass : g.passes) {
    tiles_of_task +=
        parts.band * set * tiles.parts * Split(pass.columns, most_pixels(static_cast<int>(tiles.begin(1)))).parts;
  }
  const bool ask_ahead = asks_ahead(g, s.n);

#pragma omp parallel for schedule(static)
  for (std::int64_t task = 0; task < tasks; ++task) {
    const Part at = parts.at(task);
    const std::int64_t rows = g.band_rows(at.count);
    float* mine = compact + static_cast<std::size_t>(omp_get_thread_num()) * stride;
    fill_compact(g, input + at.n * g.in_h * g.in_w * g.in_c, at.first * g.group_in, (at.last - at.first) * blocks,
                 at.unit, at.count, mine);
    Ahead ahead_in, ahead_out;
    if (ask_ahead && task + 1 < tasks) {
      const Part next = parts.at(task + 1);
      const std::int64_t out_top = next.unit * g.out_step;
      const std::int64_t out_bottom = std::min(out_top + next.count * g.out_step, g.out_h);
      ahead_in = ahead_of_input(g, next, input, g.group_in, tiles_of_task);
      ahead_out =
          Ahead(output + (next.n * g.out_h + out_top) * g.out_w * g.out_c + next.first * g.group_out,
                (out_bottom - out_top) * g.out_w, (next.last - next.first) * g.group_out, g.out_c, tiles_of_task);
    }
    for (std::int64_t group = at.first; group < at.last; ++group, mine += blocks * rows * g.compact_row()) {
      const float* tile_weights = w + group * g.group_in * g.group_out * area;
      for (std::int64_t t = 0; t < tiles.parts; ++t) {
        const auto vectors = static_cast<int>(tiles.begin(t + 1) - tiles.begin(t));
        float* out = output + at.n * g.out_h * g.out_w * g.out_c + group * g.group_out + tiles.begin(t) * kBlock;
        for (const Pass& pass : g.passes) {
          run_pass(g, pass, at.unit, std::min(at.unit + at.count, pass.rows), rows, mine, tile_weights, vectors, out,
                   ahead_in, ahead_out);
          tile_weights += std::ssize(pass.taps) * g.group_in * vectors * kBlock;
        }
      }
    }
  }
}

}  // namespace seer::dnn::direct
