// SPDX-License-Identifier: Apache-2.0
// Backward to weights: a product over positions, whose first operand must be transposed. That is the source, so that a
// tap of the kernel is an address in it and not a copy; of a 1x1 convolution the gradient, so that the product is the
// weights' gradient as it lies in memory.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "amx.hpp"
#include "amx_conv.hpp"

SEER_AMX_TARGET

namespace seer::dnn::amx {

#if defined(SEER_AMX)
namespace {

constexpr std::int64_t kOperandsInL2 = std::int64_t{5} << 18;  // bytes

/// One axis of the positions. Of the padded source, pixels of equal remainder by the stride form a plane, in which
/// neighbouring results read neighbouring pixels: tap k reads plane k % stride at the result's position + k / stride.
struct Axis {
  std::int64_t in, out, stride, pad, kernel;
  std::int64_t pitch = 0;  ///< positions; the padding behind the last pixel is that before the first one of the next
  Axis(std::int64_t size, std::int64_t results, const ConvShape& s)
      : in(size), out(results), stride(s.stride), pad(s.pad), kernel(s.kernel), pitch(results) {
    for (std::int64_t plane = 0; plane < std::min(stride, kernel); ++plane) {
      const std::int64_t zeros = std::max<std::int64_t>((pad - plane + stride - 1) / stride, 0);
      const std::int64_t pixels = (in - 1 + pad - plane) / stride + 1;
      const std::int64_t read = out + (kernel - 1 - plane) / stride;
      pitch = std::max({pitch, pixels, read - zeros});
    }
  }
  std::int64_t pixel(std::int64_t plane, std::int64_t position) const { return position * stride + plane - pad; }
  std::int64_t halo() const { return (kernel - 1) / stride; }
  std::int64_t planes() const { return std::min(stride, kernel); }
};

/// How the product's operands lie. `rows`: of positions, a band of which is worked on at a time.
struct Plan {
  const ConvShape& s;
  bool direct;  ///< the product is the gradient of the weights
  Axis y, x;
  std::int64_t joined, groups, group_in, group_out, area, parts;
  Split bands{1, 1}, slices{1, 1};  ///< slices: parts of the first operand's channels, one for each thread
  Plan(const ConvShape& shape, std::int64_t threads)
      : s(shape),
        direct(shape.kernel == 1 && shape.groups == 1),
        y(shape.h, shape.out_h(), shape),
        x(shape.w, shape.out_w(), shape),
        joined(joined_groups(shape)),
        groups(shape.groups / joined),
        group_in(shape.c_in / groups),
        group_out(shape.c_out / groups),
        area(shape.kernel * shape.kernel),
        parts(groups > 1 ? 1 : std::min(threads, (first() + 63) / 64)) {
    slices = {(first() + kRows - 1) / kRows, parts};
    // The same bands for every number of threads: sums depend on them.
    const std::int64_t bytes = 2 * x.pitch * (round_up(first(), kRows) * planes() + round_up(second(), kRows));
    bands = Split::of_at_most(s.n * y.pitch, kOperandsInL2 / bytes);
  }
  /// Channels of a group of the transposed operand, and of the other one.
  std::int64_t first() const { return direct ? group_out : group_in; }
  std::int64_t second() const { return direct ? group_in : group_out; }
  std::int64_t planes() const { return y.planes() * x.planes(); }
  std::int64_t second_tiles() const { return (second() + kRows - 1) / kRows; }
  std::int64_t most_positions() const { return round_up(bands.largest() * x.pitch, kDepth); }
  /// Positions of one channel of the transposed operand: the halo, and what the last step may read behind it. An odd
  /// number of cache lines, so that neighbouring channels do not share a set of the cache.
  std::int64_t channel_pitch() const {
    return round_up((bands.largest() + y.halo()) * x.pitch + x.halo() + 2 * kDepth, 2 * kDepth) + kDepth;
  }
};

/// 32 positions of up to 32 channels, paired for the unit's second operand: channels 0-15, then 16-31.
void load_pairs(const Half* from, std::int64_t stride, std::int64_t positions, std::int64_t channels,
                __m512i (&low)[16], __m512i (&high)[16]) {
  const auto row = [&](std::int64_t i) {
    return i < positions ? load_values(from + i * stride, channels) : _mm512_setzero_si512();
  };
  for (int i = 0; i < 16; ++i) interleave(row(2 * i), row(2 * i + 1), low[i], high[i]);
}

/// [positions][channels] to [channels][positions]; writes zeros behind the last position, up to `reach` or beyond.
void transpose_values(const Half* from, std::int64_t stride, std::int64_t positions, std::int64_t reach,
                      std::int64_t channels, Half* to, std::int64_t pitch) {
  __m512i half[2][16];
  for (std::int64_t q = 0; q < reach; q += kDepth) {
    for (std::int64_t c = 0; c < channels; c += kDepth) {
      load_pairs(from + q * stride + c, stride, positions - q, channels - c, half[0], half[1]);
      for (std::int64_t h = 0; h < 2 && c + h * kRows < channels; ++h) {
        transpose(half[h]);
        for (std::int64_t i = 0; i < kRows; ++i) _mm512_storeu_si512(to + (c + h * kRows + i) * pitch + q, half[h][i]);
      }
    }
  }
}

/// [positions][channels] to tiles of the second operand: [panel of 32 channels][32 positions][tile].
void pair_values(const Half* from, std::int64_t stride, std::int64_t positions, std::int64_t channels, Half* to) {
  const std::int64_t steps = (positions + kDepth - 1) / kDepth;
  __m512i half[2][16];
  for (std::int64_t q = 0; q < positions; q += kDepth) {
    for (std::int64_t c = 0; c < channels; c += kDepth) {
      const std::int64_t tiles = channels - c > kRows ? 2 : 1;
      Half* tile = to + (c / kRows * steps + q / kDepth * tiles) * kTile;
      load_pairs(from + q * stride + c, stride, positions - q, channels - c, half[0], half[1]);
      for (std::int64_t h = 0; h < tiles; ++h)
        for (std::int64_t i = 0; i < kRows; ++i) _mm512_storeu_si512(tile + h * kTile + i * kDepth, half[h][i]);
    }
  }
}

/// Copies rows [row, row + count) of a plane of one group's source to [position][channel], zero-padded.
void copy_plane(const Plan& p, const Half* src, std::int64_t plane, std::int64_t first_channel, std::int64_t channels,
                std::int64_t row, std::int64_t count, Half* to) {
  const std::int64_t plane_y = plane / p.x.planes(), plane_x = plane % p.x.planes();
  const std::int64_t zeros = std::max<std::int64_t>((p.x.pad - plane_x + p.x.stride - 1) / p.x.stride, 0);
  const std::int64_t first = p.x.pixel(plane_x, zeros);
  const std::int64_t copied = std::min((p.s.w - 1 - first) / p.x.stride + 1, p.x.pitch - zeros);
  for (std::int64_t v = row; v < row + count; ++v) {
    const std::int64_t image = v / p.y.pitch, y = p.y.pixel(plane_y, v % p.y.pitch);
    if (image >= p.s.n || y < 0 || y >= p.s.h || first >= p.s.w) {
      to = zero_values(to, p.x.pitch * channels);
      continue;
    }
    const Half* from = src + ((image * p.s.h + y) * p.s.w + first) * p.s.c_in + first_channel;
    to = zero_values(to, zeros * channels);
    to = copy_pixels(from, p.x.stride * p.s.c_in, copied, channels, to);
    to = zero_values(to, (p.x.pitch - zeros - copied) * channels);
  }
}

/// The same for the gradient of the results.
void copy_gradient(const Plan& p, const Half* d_dst, std::int64_t first_channel, std::int64_t row, std::int64_t count,
                   Half* to) {
  for (std::int64_t v = row; v < row + count; ++v) {
    const std::int64_t image = v / p.y.pitch, y = v % p.y.pitch, copied = y < p.y.out ? p.x.out : 0;
    const Half* from = d_dst + (image * p.y.out + y) * p.x.out * p.s.c_out + first_channel;
    to = copy_pixels(from, p.s.c_out, copied, p.group_out, to);
    to = zero_values(to, (p.x.pitch - copied) * p.group_out);
  }
}

/// Memory of one thread.
struct Memory {
  Half *first, *second, *copy;
  float* sums;
  static std::int64_t bytes(const Plan& p, Memory* memory = nullptr, std::byte* at = nullptr) {
    const std::int64_t channels = p.slices.largest() * kRows;
    const std::int64_t first = 2 * channels * p.planes() * p.channel_pitch();
    const std::int64_t second = 2 * p.second_tiles() * kRows * p.most_positions();
    const std::int64_t rows = p.bands.largest() + p.y.halo();
    const std::int64_t copy =
        p.direct && p.s.stride == 1 ? 0 : round_up(2 * rows * p.x.pitch * std::max(p.first(), p.second()), 64);
    const std::int64_t sums = (p.area * channels + kRows) * p.second_tiles() * kRows * 4;  // a tile may be read behind
    if (memory != nullptr) {
      memory->first = reinterpret_cast<Half*>(at);
      memory->second = reinterpret_cast<Half*>(at + first);
      memory->copy = reinterpret_cast<Half*>(at + first + second);
      memory->sums = reinterpret_cast<float*>(at + first + second + copy);
    }
    return first + second + copy + sums;
  }
};

/// Writes the sums [tap][channel of the source][channel of the result] of one group to OIHW; `d_weight`: of its first
/// channel of the slice.
void unpack(const Plan& p, std::int64_t in, std::int64_t channels, std::int64_t plane, const float* sums,
            Accumulate accumulate, float* d_weight) {
  const std::int64_t width = p.second_tiles() * kRows, out = p.group_out / p.joined;
  constexpr std::int64_t kBlock = kRows * kRows;
  std::vector<float> blocks(static_cast<std::size_t>(p.area * kBlock));  // [tap][result][source]
  std::vector<std::int32_t> order;                                       // of [source][tap] in it
  for (std::int64_t i = 0; i < kRows * p.area; ++i)
    order.push_back(static_cast<std::int32_t>(i % p.area * kBlock + i / p.area));
  for (std::int64_t o0 = 0; o0 < out; o0 += kRows) {
    for (std::int64_t i0 = 0; i0 < channels; i0 += kRows) {
      for (std::int64_t tap = 0; tap < p.area; ++tap) {
        __m512i r[16];
        for (std::int64_t i = 0; i < kRows; ++i) r[i] = _mm512_loadu_si512(sums + tap * plane + (i0 + i) * width + o0);
        transpose(r);
        for (std::int64_t i = 0; i < kRows; ++i) _mm512_storeu_si512(blocks.data() + tap * kBlock + i * kRows, r[i]);
      }
      const std::int64_t count = std::min(kRows, channels - i0) * p.area;
      for (std::int64_t o = 0; o < std::min(kRows, out - o0); ++o) {
        float* to = d_weight + ((o0 + o) * in + i0) * p.area;
        for (std::int64_t i = 0; i < count; i += kRows) {
          const auto mask = static_cast<__mmask16>(first_values(count - i));
          __m512 values = _mm512_i32gather_ps(_mm512_loadu_si512(order.data() + i), blocks.data() + o * kRows, 4);
          if (accumulate == Accumulate::yes) values = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + i), values);
          _mm512_mask_storeu_ps(to + i, mask, values);
        }
      }
    }
  }
}

/// The same for a product that is the gradient but for the padding of its rows.
void unpack_rows(const Plan& p, std::int64_t first, std::int64_t rows, const float* sums, Accumulate accumulate,
                 float* d_weight) {
  for (std::int64_t o = 0; o < rows; ++o, sums += p.second_tiles() * kRows) {
    float* to = d_weight + (first + o) * p.group_in;
    if (accumulate == Accumulate::yes)
      for (std::int64_t i = 0; i < p.group_in; ++i) to[i] += sums[i];
    else
      std::copy_n(sums, p.group_in, to);
  }
}

/// Positions that are multiplied for all taps of some channels while both operands stay in the first-level cache.
std::int64_t chunk_of(const Plan& p) {
  constexpr std::int64_t kInL1 = 40 << 10;
  if (p.area == 1) return p.most_positions();
  const std::int64_t reach = p.y.halo() * p.x.pitch + p.x.halo();
  return std::max((kInL1 / 2 - 2 * kRows * reach) / (4 * kRows) / kDepth, std::int64_t{4}) * kDepth;
}

/// Adds a band's products to the sums [tap][channel of the first operand][channel of the second].
void multiply_band(const Plan& p, const Memory& m, std::int64_t channels, std::int64_t positions, bool load,
                   float* sums, std::int64_t sums_stride) {
  const std::int64_t steps = (positions + kDepth - 1) / kDepth, channel_tiles = (channels + kRows - 1) / kRows;
  const std::int64_t second_tiles = p.second_tiles(), pitch = p.channel_pitch();
  std::vector<std::int32_t> offsets;
  for (std::int64_t i = 0; i < steps; ++i) offsets.push_back(static_cast<std::int32_t>(2 * i * kDepth));
  // Tiles of the first operand, in the order of the sums: [tap][16 channels].
  std::vector<const char*> tiles;
  for (std::int64_t ky = 0; ky < p.s.kernel; ++ky) {
    for (std::int64_t kx = 0; kx < p.s.kernel; ++kx) {
      const std::int64_t plane = ky % p.s.stride * p.x.planes() + kx % p.s.stride;
      const Half* first = m.first + ky / p.s.stride * p.x.pitch + kx / p.s.stride;
      for (std::int64_t tile = 0; tile < channel_tiles; ++tile)
        tiles.push_back(reinterpret_cast<const char*>(first + (plane * channel_tiles + tile) * kRows * pitch));
    }
  }
  const auto block = [&](std::int64_t step, std::int64_t count, std::int64_t row, std::int64_t rows,
                         std::int64_t column, std::int64_t columns) {
    Product product{{}, 2 * pitch, offsets.data() + step, count, m.second + (column * steps + step * columns) * kTile};
    for (std::int64_t i = 0; i < rows; ++i) product.a[i] = tiles[static_cast<std::size_t>(row + i)];
    multiply(product, rows, columns, sums + row * kRows * sums_stride + column * kRows, 4 * sums_stride,
             load || step > 0);
  };
  const Split chunks = Split::of_at_most(steps, chunk_of(p) / kDepth);
  const bool narrow = channel_tiles == 1;  // then neighbouring tiles are taps, else channels
  for (std::int64_t chunk = 0; chunk < chunks.parts; ++chunk) {
    const std::int64_t step = chunks.begin(chunk), count = chunks.begin(chunk + 1) - step;
    for (std::int64_t tile = 0; tile < channel_tiles; tile += 4) {
      for (std::int64_t column = 0; column < second_tiles; column += 2) {
        const std::int64_t columns = std::min<std::int64_t>(2, second_tiles - column), most = columns == 2 ? 2 : 4;
        if (narrow) {
          const Split taps = Split::of_at_most(p.area, most);
          for (std::int64_t i = 0; i < taps.parts; ++i)
            block(step, count, taps.begin(i), taps.begin(i + 1) - taps.begin(i), column, columns);
          continue;
        }
        const std::int64_t end = std::min(tile + 4, channel_tiles);
        for (std::int64_t first = tile; first < end; first += most)
          for (std::int64_t tap = 0; tap < p.area; ++tap)
            block(step, count, tap * channel_tiles + first, std::min(most, end - first), column, columns);
      }
    }
  }
}

/// One group and slice of channels.
void run_slice(const Plan& p, std::int64_t group, std::int64_t slice, const Half* src, const Half* d_dst,
               const Memory& m, Accumulate accumulate, float* d_weight) {
  const std::int64_t begin = p.slices.begin(slice) * kRows;
  const std::int64_t channels = std::min(p.slices.begin(slice + 1) * kRows, p.first()) - begin;
  const std::int64_t tile_channels = round_up(channels, kRows);
  const bool in_place = p.direct && channels % kRows == 0 && p.second() % kRows == 0;
  float* const sums = in_place ? d_weight + begin * p.group_in : m.sums;
  const std::int64_t sums_stride = in_place ? p.group_in : p.second_tiles() * kRows;
  for (std::int64_t band = 0; band < p.bands.parts; ++band) {
    const std::int64_t row = p.bands.begin(band), rows = p.bands.begin(band + 1) - row, positions = rows * p.x.pitch;
    if (p.direct) {
      transpose_values(d_dst + row * p.x.pitch * p.s.c_out + begin, p.s.c_out, positions, positions, channels, m.first,
                       p.channel_pitch());
      const Half* from = src + row * p.x.pitch * p.s.c_in;
      if (p.s.stride > 1) copy_plane(p, src, 0, 0, p.s.c_in, row, rows, m.copy);
      pair_values(p.s.stride > 1 ? m.copy : from, p.s.c_in, positions, p.second(), m.second);
    } else {
      const std::int64_t read = rows + p.y.halo();
      const std::int64_t reach = round_up(positions, kDepth) + p.y.halo() * p.x.pitch + p.x.halo();
      for (std::int64_t plane = 0; plane < p.planes(); ++plane) {
        copy_plane(p, src, plane, group * p.group_in + begin, channels, row, read, m.copy);
        transpose_values(m.copy, channels, read * p.x.pitch, reach, channels,
                         m.first + plane * tile_channels * p.channel_pitch(), p.channel_pitch());
      }
      copy_gradient(p, d_dst, group * p.group_out, row, rows, m.copy);
      pair_values(m.copy, p.group_out, positions, p.group_out, m.second);
    }
    multiply_band(p, m, channels, positions, band > 0 || (in_place && accumulate == Accumulate::yes), sums,
                  sums_stride);
  }
  if (in_place) return;
  if (p.direct)
    unpack_rows(p, begin, channels, sums, accumulate, d_weight);
  else
    for (std::int64_t g = 0; g < p.joined; ++g) {
      const std::int64_t in = p.group_in / p.joined, out = p.group_out / p.joined;
      unpack(p, in, p.joined > 1 ? in : channels, tile_channels * sums_stride, sums + g * (in * sums_stride + out),
             accumulate, d_weight + ((group * p.joined + g) * out * in + begin) * p.area);
    }
}

}  // namespace

void Conv::run_weights(const ConvShape& s, const void* src, const void* d_dst, float* d_weight, Accumulate accumulate) {
  const Plan p(s, omp_get_max_threads());
  const std::int64_t mine = round_up(Memory::bytes(p), 64), threads = omp_get_max_threads();
  auto* const scratch = static_cast<std::byte*>(gradient_.need(static_cast<std::size_t>(mine * threads)));
  if (space_ == device::Space::planned) return;
#pragma omp parallel
  {
    const Tiles tiles;
    Memory memory{};
    Memory::bytes(p, &memory, scratch + mine * omp_get_thread_num());
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < p.groups * p.parts; ++i)
      run_slice(p, i / p.parts, i % p.parts, static_cast<const Half*>(src), static_cast<const Half*>(d_dst), memory,
                accumulate, d_weight);
  }
}
#endif

}  // namespace seer::dnn::amx
