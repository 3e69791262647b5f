// SPDX-License-Identifier: Apache-2.0
// Products of two matrices, of which the second is read once: a panel of its columns is put in order in the cache and
// used for all rows at once. So a linear layer of few rows takes the time of reading its weights.
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "amx.hpp"
#include "amx_conv.hpp"

SEER_AMX_TARGET

namespace seer::dnn::amx {

#if defined(SEER_AMX)
namespace {

/// Tiles of columns [column, column + 32) of op(b), [step][tile], from b [n, k] (transposed) or [k, n].
void pack_panel(const GemmShape& s, const Half* b, std::int64_t column, std::int64_t tiles, Half* to) {
  const std::int64_t columns = std::min(kPanel, s.n - column);
  __m512i half[2][16];
  for (std::int64_t k = 0; k < s.k; k += kDepth, to += tiles * kTile) {
    const std::int64_t depth = std::min(kDepth, s.k - k);
    for (std::int64_t i = 0; i < kRows; ++i) {
      if (s.tb == Transpose::yes) {
        for (std::int64_t t = 0; t < 2; ++t) {
          const std::int64_t row = t * kRows + i;
          half[t][i] = row < columns ? load_values(b + (column + row) * s.k + k, depth) : _mm512_setzero_si512();
        }
      } else {
        const auto row = [&](std::int64_t r) {
          return r < depth ? load_values(b + (k + r) * s.n + column, columns) : _mm512_setzero_si512();
        };
        interleave(row(2 * i), row(2 * i + 1), half[0][i], half[1][i]);
      }
    }
    for (std::int64_t t = 0; t < tiles; ++t) {
      if (s.tb == Transpose::yes) transpose(half[t]);
      for (std::int64_t i = 0; i < kRows; ++i) _mm512_storeu_si512(to + t * kTile + i * kDepth, half[t][i]);
    }
  }
}

void store(const float* sums, std::int64_t rows, std::int64_t columns, std::int64_t pitch, bool add, float* c,
           std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, sums += pitch, c += stride) {
    for (std::int64_t i = 0; i < columns; i += kRows) {
      const auto mask = static_cast<__mmask16>(first_values(columns - i));
      const __m512 sum = _mm512_load_ps(sums + i);
      _mm512_mask_storeu_ps(c + i, mask, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c + i), sum) : sum);
    }
  }
}

}  // namespace

constexpr std::int64_t kFewRows = 256;  // with more, reading the second operand once gains nothing

bool Conv::multiply_matrices(const GemmShape& s, const void* a, const void* b, float* c) {
  if (s.type != DType::bf16 || !available() || (s.ta == Transpose::yes && s.tb == Transpose::yes)) return false;
  if (s.ta == Transpose::yes) {  // as a gradient of weights: [rows, c_out]^T [rows, c_in]
    run_weights({.n = s.k, .c_in = s.n, .c_out = s.m}, b, a, c, s.add ? Accumulate::yes : Accumulate::no);
    return true;
  }
  if (s.m > kFewRows) return false;
  const std::int64_t threads = omp_get_max_threads(), steps = (s.k + kDepth - 1) / kDepth, pitch = steps * kDepth;
  const std::int64_t rows = round_up(s.m, kRows), panel_values = steps * 2 * kTile;
  auto* const scratch =
      static_cast<Half*>(scratch_.need(static_cast<std::size_t>(2 * (rows * pitch + threads * panel_values))));
  if (space_ == device::Space::planned) return true;
  for (std::int64_t r = 0; r < rows; ++r) {  // a, padded to whole tiles
    Half* const row = scratch + r * pitch;
    if (r < s.m) std::memcpy(row, static_cast<const Half*>(a) + r * s.k, static_cast<std::size_t>(2 * s.k));
    const std::int64_t filled = r < s.m ? s.k : 0;
    zero_values(row + filled, pitch - filled);
  }
  std::vector<std::int32_t> offsets;
  for (std::int64_t i = 0; i < steps; ++i) offsets.push_back(static_cast<std::int32_t>(2 * i * kDepth));
#pragma omp parallel
  {
    const Tiles configured;
    Half* const panel = scratch + rows * pitch + omp_get_thread_num() * panel_values;
    alignas(64) float sums[kMostRowTiles * kRows * kRows];
#pragma omp for schedule(static)
    for (std::int64_t column = 0; column < s.n; column += kPanel) {
      const std::int64_t columns = std::min(kPanel, s.n - column), tiles = (columns + kRows - 1) / kRows;
      pack_panel(s, static_cast<const Half*>(b), column, tiles, panel);
      const std::int64_t most = kMostRowTiles / tiles;
      for (std::int64_t r = 0; r < s.m; r += most * kRows) {
        const std::int64_t row_tiles = std::min(most, (s.m - r + kRows - 1) / kRows);
        Product product{{}, 2 * pitch, offsets.data(), steps, panel};
        for (std::int64_t t = 0; t < row_tiles; ++t)
          product.a[t] = reinterpret_cast<const char*>(scratch + (r + t * kRows) * pitch);
        multiply(product, row_tiles, tiles, sums, tiles * kRows * 4, false);
        store(sums, std::min(row_tiles * kRows, s.m - r), columns, tiles * kRows, s.add, c + r * s.n + column, s.n);
      }
    }
  }
  return true;
}
#endif

}  // namespace seer::dnn::amx
