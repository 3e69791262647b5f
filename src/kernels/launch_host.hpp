// SPDX-License-Identifier: Apache-2.0
// Runs formulas on the processor, in tiles of wide rows. Inner loops are long, contiguous and vectorised, so a
// channel's parameters are repeated for every row that a wide row joins. Part of launch.hpp.
#pragma once

#include "launch.hpp"

#if defined(__SSE2__) && !defined(__CUDACC__)
#include <immintrin.h>
#define SEER_STREAM_OUT 1
#endif

namespace seer::kernels::launch {

namespace detail {

template <class Body>
struct HostChannels {
  Body body;
  std::int64_t c;
  void operator()(std::int64_t segment) const {
    const Body f = body;
    const std::int64_t count = c;
#pragma omp simd
    for (std::int64_t channel = 0; channel < count; ++channel) f(segment, channel);
  }
};

constexpr std::int64_t kTileElems = std::int64_t{1} << 19;  // elements per unit of work
constexpr std::int64_t kUnroll = 4;                         // wide rows reduced together

/// Units of work: `rows` wide rows of one segment, or `segments` whole segments if they are small.
struct Tiling {
  std::int64_t rows = 1, segments = 1, per_segment = 1, count = 1;
};
inline Tiling tile(const Layout& layout, bool join_segments, std::int64_t elems = kTileElems) {
  Tiling tiling;
  tiling.rows = std::max<std::int64_t>(elems / std::max<std::int64_t>(layout.width(), 1), elems / 2048);
  tiling.per_segment = std::max<std::int64_t>((layout.wide_rows() + tiling.rows - 1) / tiling.rows, 1);
  if (join_segments && tiling.per_segment == 1)
    tiling.segments = std::max<std::int64_t>(tiling.rows / std::max<std::int64_t>(layout.wide_rows(), 1), 1);
  const std::int64_t groups = (layout.segments + tiling.segments - 1) / tiling.segments;
  tiling.count = layout.elems == 0 ? 0 : groups * tiling.per_segment;
  return tiling;
}

/// Copies past the caches, so that a large result that nobody reads soon is not fetched before it is written.
template <class T>
inline void stream_out(const T* from, T* to, std::int64_t count) {
  std::int64_t i = 0;
#if defined(SEER_STREAM_OUT)
  constexpr std::int64_t kSize = sizeof(T), kLine = 64 / kSize, kVector = 16 / kSize;
  const std::int64_t head = static_cast<std::int64_t>((64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64) / kSize;
  for (; i < std::min(head, count); ++i) to[i] = from[i];
  for (; i + kLine <= count; i += kLine)
    for (std::int64_t j = 0; j < kLine; j += kVector)
      _mm_stream_ps(reinterpret_cast<float*>(to + i + j), _mm_loadu_ps(reinterpret_cast<const float*>(from + i + j)));
#endif
  for (; i < count; ++i) to[i] = from[i];
}

#if defined(__AVX512BF16__) && !defined(__CUDACC__)
/// Rounds with the processor's own instruction: integer arithmetic would take longer than the memory.
inline void narrow(const float* from, BFloat16* to, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const auto pair = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + i + 16), _mm512_loadu_ps(from + i));
    _mm512_storeu_si512(to + i, reinterpret_cast<__m512i>(pair));
  }
  for (; i < count; ++i) to[i] = from[i];
}
template <class T>
constexpr bool kNarrows = std::is_same_v<T, BFloat16>;
#else
template <class T>
constexpr bool kNarrows = false;
#endif

/// Host body of map(): one tile, row after row, because prefetchers follow sequential streams best.
template <bool kStream, class Formula, class T>
struct HostMap {
  static constexpr std::int64_t kBuffer = 2048;
  Formula formula;
  T* out;
  Layout layout;
  Tiling tiling;

  void operator()(std::int64_t item) const {
    const std::int64_t width = layout.width(), segment = item / tiling.per_segment;
    std::int64_t row = item % tiling.per_segment * tiling.rows;
    const std::int64_t end = std::min(row + tiling.rows, layout.wide_rows());
    for (; row < end; ++row) {
      const std::int64_t i = segment * layout.elems + row * width, count = std::min(width, layout.elems - row * width);
      if constexpr (kStream) {
        alignas(64) T buffer[kBuffer];
        for (std::int64_t k = 0; k < count; k += kBuffer) {
          const std::int64_t part = std::min(kBuffer, count - k);
          one(segment, i + k, k, part, buffer);
          stream_out(buffer, out + i + k, part);
        }
      } else {
        one(segment, i, 0, count, out + i);
      }
    }
#if defined(SEER_STREAM_OUT)
    if constexpr (kStream) _mm_sfence();
#endif
  }

 private:
  void one(std::int64_t segment, std::int64_t i, std::int64_t k0, std::int64_t count, T* y) const {
    if constexpr (kNarrows<T>) {
      alignas(64) float values[kBuffer];
      for (std::int64_t k = 0; k < count; k += kBuffer) {
        const std::int64_t part = std::min(kBuffer, count - k);
        all(segment, i + k, k0 + k, part, values);
        narrow(values, y + k, part);
      }
    } else {
      all(segment, i, k0, count, y);
    }
  }
  void all(std::int64_t segment, std::int64_t i, std::int64_t k0, std::int64_t count, auto* y) const {
    const Formula f = formula;  // a local copy: nothing that a store of results could alias
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) y[k] = f(segment, i + k, k0 + k);
  }
};

/// Streams fresh results of at least this size: they would not stay in a core's share of the last-level cache.
constexpr std::int64_t kStreamBytes = std::int64_t{16} << 20;

}  // namespace detail

template <class T, class Formula>
void host_map(const Queue& queue, const char* label, const Layout& layout, T* out, const Formula& formula,
              Result result) {
  const bool alone = device::loop_threads() == 1;
  const detail::Tiling tiling = detail::tile(layout, false, alone ? detail::kTileElems : detail::kTileElems / 16);
  if (result == Result::fresh &&
      layout.segments * layout.elems * static_cast<std::int64_t>(sizeof(T)) >= detail::kStreamBytes)
    loop<Host>(queue, label, tiling.count, detail::HostMap<true, Formula, T>{formula, out, layout, tiling});
  else
    loop<Host>(queue, label, tiling.count, detail::HostMap<false, Formula, T>{formula, out, layout, tiling});
}

namespace detail {

/// Host body of reduce(): sums a part of the columns of one tile into partial[tile][N][width], so that results do not
/// depend on the number of threads. Adds in float over short runs of rows only, then
/// in double. Handles four rows together, which quarters the accumulators' memory traffic. Hardware prefetchers lose
/// track of four short streams in one page, so it prefetches the next four rows itself, in sequential order.
template <int N, bool kStore, class Formula, class T>
struct HostReduce {
  static constexpr std::int64_t kRun = 64, kStep = 64;
  Formula formula;
  double* partial;
  float* runs;  // [item][N][width]
  T* store;
  Layout layout;
  Tiling tiling;
  std::int64_t parts;  ///< of the columns

  void operator()(std::int64_t index) const {
    const std::int64_t item = index / parts, width = layout.width(), group = item / tiling.per_segment;
    const std::int64_t steps = (width + kStep - 1) / kStep, part = index % parts;
    const std::int64_t k0 = steps * part / parts * kStep, k1 = std::min(steps * (part + 1) / parts * kStep, width);
    const std::int64_t first = group * tiling.segments, last = std::min(first + tiling.segments, layout.segments);
    const std::int64_t row = item % tiling.per_segment * tiling.rows;
    const std::int64_t end = std::min(row + tiling.rows, layout.wide_rows());
    double* const total = partial + item * N * width;
    float* const run = runs + item * N * width;
    for (int n = 0; n < N; ++n) std::fill(total + n * width + k0, total + n * width + k1, 0.0);
    for (std::int64_t segment = first; segment < last; ++segment) add(segment, row, end, k0, k1, run, total);
  }

 private:
  void add(std::int64_t segment, std::int64_t row, std::int64_t end, std::int64_t k0, std::int64_t k1, float* run,
           double* total) const {
    const std::int64_t full = std::min(end, layout.full_rows()), width = layout.width(), base = segment * layout.elems;
    while (row < end) {
      for (int n = 0; n < N; ++n) std::fill(run + n * width + k0, run + n * width + k1, 0.0F);
      const std::int64_t stop = std::min(row + kRun, end);
      for (; row + kUnroll <= std::min(stop, full); row += kUnroll) four(segment, base + row * width, k0, k1, run);
      for (; row < stop; ++row) one(segment, base + row * width, k0, std::min(k1, layout.elems - row * width), run);
      for (int n = 0; n < N; ++n) {
#pragma omp simd
        for (std::int64_t k = n * width + k0; k < n * width + k1; ++k) total[k] += static_cast<double>(run[k]);
      }
    }
  }
  void four(std::int64_t segment, std::int64_t i0, std::int64_t begin, std::int64_t end, float* run) const {
    const Formula f = formula;  // a local copy: nothing that a store of results could alias
    T* const y = store;
    const std::int64_t width = layout.width(), i1 = i0 + width, i2 = i1 + width, i3 = i2 + width;
    float *const a = run, *const b = run + width, *const c = run + 2 * width;
    for (std::int64_t k0 = begin; k0 < end; k0 += kStep) {
      const std::int64_t k1 = std::min(k0 + kStep, end);
      for (const auto* input : f.inputs()) {
        const auto* next = input + i0 + kUnroll * (width + k0);
        for (std::int64_t j = 0; j < kUnroll * kStep; j += static_cast<std::int64_t>(64 / sizeof(*input)))
          __builtin_prefetch(next + j, 0, 2);  // into L2: L1 has too few ways
      }
#pragma omp simd
      for (std::int64_t k = k0; k < k1; ++k) {
        const Terms p = f(segment, i0 + k, k), q = f(segment, i1 + k, k);
        const Terms s = f(segment, i2 + k, k), t = f(segment, i3 + k, k);
        a[k] += (p.a + q.a) + (s.a + t.a);
        if constexpr (N > 1) b[k] += (p.b + q.b) + (s.b + t.b);
        if constexpr (N > 2) c[k] += (p.c + q.c) + (s.c + t.c);
        if constexpr (kStore) {
          y[i0 + k] = p.store;
          y[i1 + k] = q.store;
          y[i2 + k] = s.store;
          y[i3 + k] = t.store;
        }
      }
    }
  }
  void one(std::int64_t segment, std::int64_t i, std::int64_t begin, std::int64_t end, float* run) const {
    const Formula f = formula;
    T* const y = store;
    float *const a = run, *const b = run + layout.width(), *const c = run + 2 * layout.width();
#pragma omp simd
    for (std::int64_t k = begin; k < end; ++k) {
      const Terms p = f(segment, i + k, k);
      a[k] += p.a;
      if constexpr (N > 1) b[k] += p.b;
      if constexpr (N > 2) c[k] += p.c;
      if constexpr (kStore) y[i + k] = p.store;
    }
  }
};

/// Adds the tiles' partial results in order.
template <int N, class Finish>
struct HostFinish {
  Finish finish;
  const double* partial;
  std::int64_t items, width, c, copies;
  void operator()(std::int64_t segment, std::int64_t channel) const {
    double sums[N] = {};
    const double* part = partial + segment * items * N * width + channel;
    for (std::int64_t item = 0; item < items; ++item) {
      for (int n = 0; n < N; ++n, part += width)
        for (std::int64_t copy = 0; copy < copies; ++copy) sums[n] += part[copy * c];
    }
    finish(segment, channel, sums);
  }
};

}  // namespace detail

template <int N, bool kStore, class Formula, class Finish, class T>
void host_reduce(const Queue& queue, const char* label, Scratch& scratch, const Layout& layout, bool per_segment,
                 const Formula& formula, const Finish& finish, T* out) {
  const detail::Tiling tiling = detail::tile(layout, !per_segment);
  const std::int64_t width = layout.width();
  double* const partial = scratch.get<double>(tiling.count * N * width);
  float* const runs = scratch.get<float>(tiling.count * N * width);
  // Whole tiles, unless threads would wait for the last of them.
  const std::int64_t threads = device::loop_threads(), parts = tiling.count >= 4 * threads ? 1 : threads;
  loop<Host>(queue, label, tiling.count * parts,
             detail::HostReduce<N, kStore, Formula, T>{formula, partial, runs, out, layout, tiling, parts});
  const std::int64_t items = tiling.count == 0 ? 0 : (per_segment ? tiling.per_segment : tiling.count);
  const detail::HostFinish<N, Finish> added{finish, partial, items, width, layout.c, layout.copies};
  loop<Host>(queue, "kernels/reduce_finish", per_segment ? layout.segments : 1,
             detail::HostChannels<detail::HostFinish<N, Finish>>{added, layout.c});
}

}  // namespace seer::kernels::launch
