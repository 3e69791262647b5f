// SPDX-License-Identifier: Apache-2.0
// Forward and backward to data.
#include "amx_conv.hpp"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "amx.hpp"

SEER_AMX_TARGET

namespace seer::dnn::amx {

#if defined(SEER_AMX)
namespace {

constexpr std::int64_t kWeightsInL2 = std::int64_t{1} << 20;  // bytes of weights that stay in the cache beside values
constexpr std::int64_t kValuesInL2 = 256 << 10;               // bytes of the compact buffer

/// Where the packed weights of each group, pass and panel lie: [group][pass][panel][step][tile of the panel].
struct Packed {
  std::int64_t panels = 0, column_tiles = 0;       ///< of a group
  std::vector<std::vector<std::int32_t>> steps{};  ///< of each pass: bytes from a result's address in the buffer
  std::vector<std::int64_t> pass_tiles{0};         ///< before each pass
  /// `plane_values`: of the buffer, from one plane to the next.
  Packed(const Geometry& g, std::int64_t plane_values)
      : panels((g.group_out + kPanel - 1) / kPanel), column_tiles((g.group_out + kRows - 1) / kRows) {
    for (const Pass& pass : g.passes) {
      auto& offsets = steps.emplace_back();
      for (const Run& run : pass.runs) {
        const std::int64_t first = run.plane * plane_values + run.row * g.row_values() + run.column * g.group_in;
        for (std::int64_t k = 0; k < std::ssize(run.taps) * g.group_in; k += kDepth)
          offsets.push_back(static_cast<std::int32_t>(2 * (first + k)));
      }
      pass_tiles.push_back(pass_tiles.back() + std::ssize(offsets) * column_tiles);
    }
  }
  std::int64_t group_tiles() const { return pass_tiles.back(); }
  std::int64_t at(std::int64_t group, std::size_t pass, std::int64_t panel) const {
    return (group * group_tiles() + pass_tiles[pass] + 2 * panel * std::ssize(steps[pass])) * kTile;
  }
  std::int64_t tiles_of(std::int64_t panel) const { return std::min<std::int64_t>(2, column_tiles - 2 * panel); }
};

/// Lanes of floats, `stride` apart; others are 0 and not read.
__m512 load_strided(const float* from, std::int64_t stride, __mmask16 lanes) {
  if (stride == 1) return _mm512_maskz_loadu_ps(lanes, from);
  const __m512i index = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                           _mm512_set1_epi32(static_cast<int>(stride)));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), lanes, index, from, 4);
}

/// Lanes [first, last), of those that exist.
__mmask16 lanes(std::int64_t first, std::int64_t last) {
  const auto below = [](std::int64_t lane) { return (1U << std::clamp<std::int64_t>(lane, 0, kRows)) - 1; };
  return static_cast<__mmask16>(below(last) & ~below(first));
}

void store_values(Half* to, __m512 values, __mmask16 lanes) {
  _mm256_mask_storeu_epi16(to, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

/// Forward: the tiles of 16 results of a run, `stride` values apart. The weights of a result follow each other in OIHW.
void pack_results(const Geometry& g, const Run& run, const float* weights, std::int64_t group, std::int64_t column,
                  std::vector<Half>& staged, Half* tile, std::int64_t stride) {
  const std::int64_t area = g.kernel * g.kernel, in = g.group_in / g.joined, out = g.group_out / g.joined;
  const std::int64_t depth = round_up(std::ssize(run.taps) * g.group_in, kDepth);
  staged.assign(static_cast<std::size_t>(kRows * depth), 0);  // [result][value]
  for (std::size_t t = 0; t < run.taps.size(); ++t) {
    for (std::int64_t o = column; o < std::min(column + kRows, g.group_out); ++o) {
      const float* from = weights + (group * g.group_out + o) * in * area + run.taps[t].y * g.kernel + run.taps[t].x;
      Half* to = staged.data() + (o - column) * depth + static_cast<std::int64_t>(t) * g.group_in + o / out * in;
      for (std::int64_t i = 0; i < in; i += kRows)
        store_values(to + i, load_strided(from + i * area, area, lanes(0, in - i)), lanes(0, in - i));
    }
  }
  for (std::int64_t k = 0; k < depth; k += kDepth, tile += stride) {
    __m512i r[16];
    for (std::int64_t i = 0; i < kRows; ++i) r[i] = _mm512_loadu_si512(staged.data() + i * depth + k);
    transpose(r);
    for (std::int64_t i = 0; i < kRows; ++i) _mm512_storeu_si512(tile + i * kDepth, r[i]);
  }
}

/// Backward: values k0 to k0 + 32 of a run for all results of a group, 16 of which follow each other in OIHW.
void pack_values(const Geometry& g, const Run& run, const float* weights, std::int64_t group, std::int64_t k0,
                 const auto& tile_of) {
  const std::int64_t area = g.kernel * g.kernel, in = g.group_in / g.joined, out = g.group_out / g.joined;
  const std::int64_t end = std::ssize(run.taps) * g.group_in;
  const auto row = [&](std::int64_t k, std::int64_t column) {
    if (k >= end) return _mm512_setzero_ps();
    const auto& tap = run.taps[static_cast<std::size_t>(k / g.group_in)];
    const std::int64_t i = k % g.group_in, first = i / in * out;  // the first result of i's group
    const float* from = weights + ((group * g.group_in + i) * out + column - first) * area + tap.y * g.kernel + tap.x;
    return load_strided(from, area, lanes(first - column, first + out - column));
  };
  const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (std::int64_t k = 0; k < kDepth; k += 2) {
    for (std::int64_t column = 0; column < g.group_out; column += kRows) {
      const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(row(k0 + k + 1, column), row(k0 + k, column)));
      _mm512_storeu_si512(tile_of(column) + k * kRows, _mm512_permutexvar_epi16(pairs, both));
    }
  }
}

void pack(const Geometry& g, const Packed& p, bool forward, const float* weights, Half* packed) {
#pragma omp parallel
  {
    std::vector<Half> staged;
    for (std::size_t pass = 0; pass < g.passes.size(); ++pass) {
      std::int64_t step = 0;
      for (const Run& run : g.passes[pass].runs) {
        const std::int64_t steps = (std::ssize(run.taps) * g.group_in + kDepth - 1) / kDepth;
        const auto tile_of = [&](std::int64_t group, std::int64_t at_step, std::int64_t column) {
          const std::int64_t panel = column / kPanel;
          return packed + p.at(group, pass, panel) + (at_step * p.tiles_of(panel) + column % kPanel / kRows) * kTile;
        };
        if (forward) {
#pragma omp for nowait
          for (std::int64_t i = 0; i < g.groups * p.column_tiles; ++i) {
            const std::int64_t group = i / p.column_tiles, column = i % p.column_tiles * kRows;
            pack_results(g, run, weights, group, column, staged, tile_of(group, step, column),
                         p.tiles_of(column / kPanel) * kTile);
          }
        } else {
#pragma omp for nowait
          for (std::int64_t i = 0; i < g.groups * steps; ++i) {
            const std::int64_t group = i / steps, at_step = step + i % steps;
            pack_values(g, run, weights, group, i % steps * kDepth,
                        [&](std::int64_t column) { return tile_of(group, at_step, column); });
          }
        }
        step += steps;
      }
    }
  }
}

/// Copies the values of one group that results of buffer rows [row, row + count) need.
void fill(const Geometry& g, const Half* input, std::int64_t group, std::int64_t row, std::int64_t count,
          std::int64_t plane_values, Half* buffer) {
  const std::int64_t c = g.group_in, row_values = g.row_values();
  const std::int64_t copied = std::min((g.in_w - 1) / g.column_step + 1, g.pitch * g.pixels - g.left);
  for (std::int64_t plane = 0; plane < g.planes; ++plane, buffer += plane_values) {
    Half* to = buffer;
    for (std::int64_t v = row; v < row + count + g.halo(); ++v) {
      const std::int64_t image = v / g.image_rows, y = v % g.image_rows * g.row_step + plane - g.top;
      if (image >= g.n || y < 0 || y >= g.in_h) {
        to = zero_values(to, row_values);
        continue;
      }
      const Half* from = input + (image * g.in_h + y) * g.in_w * g.in_c + group * c;
      to = zero_values(to, g.left * c);
      to = copy_pixels(from, g.column_step * g.in_c, copied, c, to);
      to = zero_values(to, row_values - (g.left + copied) * c);
    }
    zero_values(to, g.tail());
  }
}

/// Rounds `count` rows of results and writes each to the pixel that `where` names, if any.
template <bool kAdd>
void store(const float* c, std::int64_t tiles, std::int64_t count, const std::int32_t* where, std::int64_t stride,
           std::int64_t columns, Half* out) {
  const __mmask32 mask = first_values(columns);
  for (std::int64_t r = 0; r < count; ++r, c += tiles * kRows) {
    if (where[r] < 0) continue;
    Half* const to = out + where[r] * stride;
    __m512 low = _mm512_load_ps(c), high = tiles == 2 ? _mm512_load_ps(c + kRows) : _mm512_setzero_ps();
    if constexpr (kAdd) {
      const auto part = [&](int shift) {
        const auto lanes = static_cast<__mmask16>(mask >> shift);
        return _mm512_cvtpbh_ps(reinterpret_cast<__m256bh>(_mm256_maskz_loadu_epi16(lanes, to + shift)));
      };
      low = _mm512_add_ps(low, part(0));
      high = _mm512_add_ps(high, part(kRows));
    }
    _mm512_mask_storeu_epi16(to, mask, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
}

/// For results of buffer rows [row, row + count) of a pass: the pixel of the output, or -1 for padding.
void find_places(const Geometry& g, const Pass& pass, std::int64_t row, std::int64_t count, std::int32_t* where) {
  for (std::int64_t v = row; v < row + count; ++v, where += g.pitch) {
    const std::int64_t image = v / g.image_rows, i = v % g.image_rows;
    const std::int64_t columns = i < pass.rows ? pass.columns : 0;
    const std::int64_t first = (image * g.out_h + pass.first_row + i * g.out_step) * g.out_w + pass.first_column;
    for (std::int64_t j = 0; j < columns; ++j) where[j] = static_cast<std::int32_t>(first + j * g.out_step);
    std::fill(where + columns, where + g.pitch, -1);
  }
}

/// A pass without weights: no tap reaches these results.
void store_zeros(const Geometry& g, const std::int32_t* where, std::int64_t count, std::int64_t columns, Half* out) {
  for (std::int64_t r = 0; r < count; ++r)
    if (where[r] >= 0) std::memset(out + where[r] * g.out_c, 0, static_cast<std::size_t>(2 * columns));
}

struct Task {
  const Geometry& g;
  const Packed& p;
  const Half *input, *weights;
  Half* output;
  bool add;
};

/// Neighbouring positions of the buffer, and where their results belong.
struct Band {
  const Half* values;
  std::int64_t count;
  const std::int32_t* where;
  std::int64_t readable;  ///< positions that exist
  Half* rest;             ///< memory for a copy of the last ones, so that a whole tile can be read
};

/// Results of some panels of one group and pass.
void run_pass(const Task& t, std::size_t pass, std::int64_t group, std::int64_t first_panel, std::int64_t last_panel,
              const Band& band) {
  const Geometry& g = t.g;
  const auto& steps = t.p.steps[pass];
  Half* const out = t.output + group * g.group_out;
  if (steps.empty() && t.add) return;
  if (steps.empty())
    return store_zeros(g, band.where, band.count, std::min(g.group_out, last_panel * kPanel) - first_panel * kPanel,
                       out + first_panel * kPanel);
  const std::int64_t step = g.in_place ? g.in_c : g.pixels * g.group_in;
  alignas(64) float c[kMostRowTiles * kRows * kRows];
  const auto block = [&](std::int64_t q, std::int64_t rows, std::int64_t panel) {
    const std::int64_t tiles = t.p.tiles_of(panel), row_tiles = (rows + kRows - 1) / kRows;
    const Half* from = band.values + q * step;
    if (q + row_tiles * kRows >= band.readable) {
      std::memcpy(band.rest, from, static_cast<std::size_t>(2 * rows * step));
      std::memset(band.rest + rows * step, 0, kDepth * sizeof(Half));
      from = band.rest;
    }
    // Results are written soon after: their lines come meanwhile.
    for (std::int64_t r = q; r < q + rows; ++r)
      if (band.where[r] >= 0) __builtin_prefetch(out + band.where[r] * g.out_c + panel * kPanel, 1, 2);
    const auto tile = [&](std::int64_t m) { return reinterpret_cast<const char*>(from + m * kRows * step); };
    const Product product{{tile(0), tile(1), tile(2), tile(3)},
                          2 * step,
                          steps.data(),
                          std::ssize(steps),
                          t.weights + t.p.at(group, pass, panel)};
    multiply(product, row_tiles, tiles, c, tiles * kRows * 4, false);
    (t.add ? store<true> : store<false>)(c, tiles, rows, band.where + q, g.out_c,
                                         std::min(kPanel, g.group_out - panel * kPanel), out + panel * kPanel);
  };
  const std::int64_t pairs = std::min(last_panel, t.p.column_tiles / 2);  // panels of two tiles
  // Values in place come from memory, in tiles that the hardware does not foresee: ask for the next ones.
  const std::int64_t ahead =
      g.in_place ? 2 * kRows * step / std::max<std::int64_t>(pairs - first_panel, 1) + kDepth : 0;
  for (std::int64_t q = 0; q < band.count; q += 2 * kRows) {
    const Half* next = band.values + (q + 2 * kRows) * step;
    for (std::int64_t panel = first_panel; panel < pairs; ++panel, next += ahead) {
      if (ahead > 0 && q + 4 * kRows < band.readable) prefetch_values(next, ahead);
      block(q, std::min(2 * kRows, band.count - q), panel);
    }
  }
  for (std::int64_t panel = std::max(first_panel, pairs); panel < last_panel; ++panel)
    for (std::int64_t q = 0; q < band.count; q += kMostRowTiles * kRows)
      block(q, std::min(kMostRowTiles * kRows, band.count - q), panel);
}

}  // namespace

void Conv::run(Direction direction, const ConvShape& s, const void* input, Weights weights, PackedWeights& packed,
               void* output, Accumulate accumulate) {
  const bool forward = direction == Direction::forward;
  const Geometry g = geometry(direction, s);
  const std::int64_t threads = omp_get_max_threads(), row_bytes = 2 * g.planes * g.row_values();
  Split bands = Split::of_at_most(g.rows(), kValuesInL2 / row_bytes);
  bands.parts = std::min(std::max(bands.parts, threads), g.rows());
  const std::int64_t plane_values = (bands.largest() + g.halo()) * g.row_values() + g.tail();
  const Packed p(g, plane_values);
  const auto weight_bytes = static_cast<std::size_t>(g.groups * p.group_tiles() * kTile) * sizeof(Half);
  const auto* w =
      static_cast<const Half*>(packed.get(weights, layout_of(direction, s), weight_bytes, [&](void* memory) {
        pack(g, p, forward, static_cast<const float*>(weights.data), static_cast<Half*>(memory));
      }));

  const std::int64_t panels = g.groups * p.panels, panel_bytes = static_cast<std::int64_t>(weight_bytes) / panels;
  const Split chunks = Split::of_at_most(panels, kWeightsInL2 / std::max<std::int64_t>(panel_bytes, 1));
  // Each thread's memory: places of results, then the compact buffer, and behind it what the last tiles may read.
  const std::int64_t places = round_up(4 * bands.largest() * g.pitch * std::ssize(g.passes), 64);
  const std::int64_t rest = kMostRowTiles * kRows * g.pixels * g.group_in + kDepth;
  const std::int64_t values = 2 * ((g.in_place ? 0 : g.planes * plane_values) + rest);
  const std::int64_t mine = round_up(places + values, 64);
  auto* const scratch = static_cast<std::byte*>(scratch_.need(static_cast<std::size_t>(mine * threads)));
  if (space_ == device::Space::planned) return;

  const Task task{g, p, static_cast<const Half*>(input), w, static_cast<Half*>(output), accumulate == Accumulate::yes};
#pragma omp parallel
  {
    const Tiles tiles;
    auto* const where = reinterpret_cast<std::int32_t*>(scratch + mine * omp_get_thread_num());
    auto* const buffer = reinterpret_cast<Half*>(scratch + mine * omp_get_thread_num() + places);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < chunks.parts * bands.parts; ++i) {
      const std::int64_t chunk = i / bands.parts, row = bands.begin(i % bands.parts);
      const std::int64_t rows = bands.begin(i % bands.parts + 1) - row, count = rows * g.pitch;
      for (std::size_t pass = 0; pass < g.passes.size(); ++pass)
        find_places(g, g.passes[pass], row, rows, where + static_cast<std::int64_t>(pass) * count);
      const std::int64_t begin = chunks.begin(chunk), end = chunks.begin(chunk + 1);
      for (std::int64_t group = begin / p.panels; group * p.panels < end; ++group) {
        const std::int64_t first = std::max(begin - group * p.panels, std::int64_t{0});
        const std::int64_t last = std::min(end - group * p.panels, p.panels);
        if (!g.in_place) fill(g, task.input, group, row, rows, plane_values, buffer);
        Band band{.values = g.in_place ? task.input + row * g.row_values() : buffer,
                  .count = count,
                  .where = where,
                  .readable = g.in_place ? (g.rows() - row) * g.pitch : std::numeric_limits<std::int64_t>::max(),
                  .rest = buffer};
        for (std::size_t pass = 0; pass < g.passes.size(); ++pass, band.where += count)
          run_pass(task, pass, group, first, last, band);
      }
    }
  }
}

int Conv::layout_of(Direction direction, const ConvShape& s) {
  // Everything that packing depends on. Not the image: all crop sizes share a copy.
  const Layout wanted = {
      direction == Direction::forward, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups, std::min(s.stride, s.h),
      std::min(s.stride, s.w)};
  auto found = std::find(layouts_.begin(), layouts_.end(), wanted);
  if (found == layouts_.end()) found = layouts_.insert(found, wanted);
  return kFirstLayout - static_cast<int>(found - layouts_.begin());
}
#endif

}  // namespace seer::dnn::amx
