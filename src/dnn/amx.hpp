// SPDX-License-Identifier: Apache-2.0
// Products of bf16 matrices on a processor's matrix units (Intel AMX): what our own convolutions for them share. Sums
// are floats. The code is compiled for every x86-64 and must run only where available() is true.
//
// A tile is a matrix of 16 rows of 64 bytes. The unit multiplies a tile of a [16 rows][32 values] with a tile of b, in
// which two neighbouring values of a column lie together: [16 pairs][16 columns][2].
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEER_AMX 1
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 in its own intrinsics (GCC bug 105593)
#define SEER_AMX_TARGET _Pragma("GCC target(\"avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16\")")
#else
#define SEER_AMX_TARGET
#endif

namespace seer::dnn::amx {

using Half = std::uint16_t;                 ///< the bits of a bf16
constexpr std::int64_t kRows = 16;          ///< of a tile
constexpr std::int64_t kDepth = 32;         ///< bf16 values in a row of a tile of a
constexpr std::int64_t kTile = 16 * 32;     ///< bf16 values of a tile
constexpr std::int64_t kPanel = 2 * kRows;  ///< columns of results computed together
constexpr std::int64_t kMostRowTiles = 4;   ///< of results that one product computes

/// True if oneDNN may use the units (has_bf16_matrix_units), and the system lets this process do so. Asks once.
bool available();

inline std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Cuts n into `parts` as equal as possible. begin(i): first element of part i.
struct Split {
  std::int64_t n, parts;
  static Split of_at_most(std::int64_t n, std::int64_t most) {
    return {n, std::max<std::int64_t>((n + most - 1) / std::max<std::int64_t>(most, 1), 1)};
  }
  std::int64_t begin(std::int64_t i) const { return n / parts * i + std::min(i, n % parts); }
  std::int64_t largest() const { return (n + parts - 1) / parts; }
};

#if defined(SEER_AMX)
#pragma GCC push_options
SEER_AMX_TARGET

/// While it lives, the calling thread's tiles have their full size. Puts the former configuration back: oneDNN 3 sets
/// its own only where it differs from the one that it set last.
class Tiles {
 public:
  Tiles() {
    _tile_storeconfig(&former_);
    Config full;
    full.palette = 1;
    std::fill_n(full.row_bytes, 8, std::uint16_t{64});
    std::fill_n(full.rows, 8, std::uint8_t{16});
    _tile_loadconfig(&full);
  }
  ~Tiles() {
    if (former_.palette == 0)
      _tile_release();
    else
      _tile_loadconfig(&former_);
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  struct alignas(64) Config {
    std::uint8_t palette = 0, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  };
  Config former_;
};

/// Operands of a product. Row tile m of a begins at a[m], its rows are `a_stride` bytes apart. Step s multiplies 32
/// values of each row, `steps[s]` bytes from its address, with the next N tiles of b.
struct Product {
  const char* a[4];
  std::int64_t a_stride;
  const std::int32_t* steps;
  std::int64_t count;
  const Half* b;
};

/// Loads (or zeroes), adds the product to, and stores M x N tiles of floats (M x N <= 4, N <= 2). Rows of c are
/// `c_stride` bytes apart.
template <int M, int N>
inline void multiply(const Product& p, float* c, std::int64_t c_stride, bool load) {
  static_assert(N == 1 || M <= 2);
  char* const to = reinterpret_cast<char*>(c);
  const std::int64_t down = 16 * c_stride;
  if (load) {
    _tile_loadd(0, to, c_stride);
    if constexpr (N == 2) _tile_loadd(1, to + 64, c_stride);
    if constexpr (N == 2 && M == 2) _tile_loadd(2, to + down, c_stride);
    if constexpr (N == 2 && M == 2) _tile_loadd(3, to + down + 64, c_stride);
    if constexpr (N == 1 && M > 1) _tile_loadd(1, to + down, c_stride);
    if constexpr (N == 1 && M > 2) _tile_loadd(2, to + 2 * down, c_stride);
    if constexpr (N == 1 && M > 3) _tile_loadd(3, to + 3 * down, c_stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const char* b = reinterpret_cast<const char*>(p.b);
  const std::int64_t stride = p.a_stride;
  const char *const a0 = p.a[0], *const a1 = p.a[1], *const a2 = p.a[2], *const a3 = p.a[3];
  for (std::int64_t s = 0; s < p.count; ++s, b += N * kTile * 2) {
    const std::int64_t step = p.steps[s];
    _tile_loadd(4, a0 + step, stride);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, b + 1024, 64);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (M == 2) {
        _tile_loadd(5, a1 + step, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    } else {
      if constexpr (M > 1) {
        _tile_loadd(5, a1 + step, stride);
        _tile_dpbf16ps(1, 5, 6);
      }
      if constexpr (M > 2) {
        _tile_loadd(7, a2 + step, stride);
        _tile_dpbf16ps(2, 7, 6);
      }
      if constexpr (M > 3) {
        _tile_loadd(4, a3 + step, stride);
        _tile_dpbf16ps(3, 4, 6);
      }
    }
  }
  _tile_stored(0, to, c_stride);
  if constexpr (N == 2) _tile_stored(1, to + 64, c_stride);
  if constexpr (N == 2 && M == 2) _tile_stored(2, to + down, c_stride);
  if constexpr (N == 2 && M == 2) _tile_stored(3, to + down + 64, c_stride);
  if constexpr (N == 1 && M > 1) _tile_stored(1, to + down, c_stride);
  if constexpr (N == 1 && M > 2) _tile_stored(2, to + 2 * down, c_stride);
  if constexpr (N == 1 && M > 3) _tile_stored(3, to + 3 * down, c_stride);
}

/// The same for `row_tiles` x `column_tiles` known at run time only.
inline void multiply(const Product& p, std::int64_t row_tiles, std::int64_t column_tiles, float* c,
                     std::int64_t c_stride, bool load) {
  if (column_tiles == 2)
    return row_tiles == 2 ? multiply<2, 2>(p, c, c_stride, load) : multiply<1, 2>(p, c, c_stride, load);
  switch (row_tiles) {
    case 1:
      return multiply<1, 1>(p, c, c_stride, load);
    case 2:
      return multiply<2, 1>(p, c, c_stride, load);
    case 3:
      return multiply<3, 1>(p, c, c_stride, load);
    default:
      return multiply<4, 1>(p, c, c_stride, load);
  }
}

/// Transposes 16 x 16 values of 32 bits in place.
inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // 128-bit lanes: rows i, i + 4, i + 8, i + 12 hold columns 4 lane + i of 4 rows each
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

/// Pairs the values of two rows of 32: (low[0], high[0]), (low[1], high[1]), ...; columns 0-15 first.
inline void interleave(__m512i low, __m512i high, __m512i& first, __m512i& second) {
  const __m512i a = _mm512_unpacklo_epi16(low, high), b = _mm512_unpackhi_epi16(low, high);
  const __m512i order_first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i order_second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  first = _mm512_permutex2var_epi64(a, order_first, b);
  second = _mm512_permutex2var_epi64(a, order_second, b);
}

/// A mask of the first `count` (at most 32) 16-bit values.
inline __mmask32 first_values(std::int64_t count) {
  return count >= 32 ? 0xffffffffU : (std::uint32_t{1} << count) - 1;
}
inline __m512i load_values(const Half* from, std::int64_t count) {
  return count >= 32 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi16(first_values(count), from);
}

/// Copies some channels of `count` pixels, `stride` values apart, to neighbouring places; returns what follows them.
/// The channels behind them, which the next group needs soon, are asked for.
inline Half* copy_pixels(const Half* from, std::int64_t stride, std::int64_t count, std::int64_t channels, Half* to) {
  const std::int64_t full = channels / kDepth * kDepth;
  const __mmask32 rest = first_values(channels - full);
  for (std::int64_t i = 0; i < count; ++i, from += stride, to += channels) {
    for (std::int64_t c = 0; c < full; c += kDepth) {
      _mm_prefetch(reinterpret_cast<const char*>(from + channels + c), _MM_HINT_T1);
      _mm512_storeu_si512(to + c, _mm512_loadu_si512(from + c));
    }
    if (rest == 0) continue;
    _mm_prefetch(reinterpret_cast<const char*>(from + channels + full), _MM_HINT_T1);
    _mm512_mask_storeu_epi16(to + full, rest, _mm512_maskz_loadu_epi16(rest, from + full));
  }
  return to;
}
inline void prefetch_values(const Half* from, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kDepth) _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T1);
}
inline Half* zero_values(Half* to, std::int64_t count) {
  std::memset(to, 0, static_cast<std::size_t>(2 * count));
  return to + count;
}

#pragma GCC pop_options
#endif

}  // namespace seer::dnn::amx
