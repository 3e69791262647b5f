// SPDX-License-Identifier: Apache-2.0
// How a formula is spread over a tensor. A formula is a small copyable struct of raw pointers whose call operator is a
// KOKKOS_INLINE_FUNCTION of one element (or of one matrix row); it is written once, and the launchers here map it onto
// an execution space. Included by src/kernels/*.cpp only (Kokkos headers stay inside .cpp files).
//
// Host mapping: a tensor [segments, rows, c] is walked in "wide rows" of `width` = copies * c floats. Small or odd
// channel counts are widened to several rows at once, with per-channel parameters repeated as often, so that the inner
// loop is always long, contiguous and vectorised. A segment is an image where parameters or results differ from image
// to image, else the whole tensor. Work is cut by the tensor's shape alone and partial results are added in order: the
// same bits in every run and for every number of threads. A device space adds its own mapping beside these and leaves
// the formulas alone.
#pragma once

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels::launch {

using device::Queue;
using device::Tensor;

/// Calls run.operator()<Space>() with the execution space of the queue: the one switch between back ends.
template <class Run>
decltype(auto) on_space(const Queue& queue, Run&& run) {
  ensure(queue.space == device::Space::host, "a kernel was asked for on a device queue in a host build");
  return run.template operator()<Kokkos::DefaultHostExecutionSpace>();
}

/// Kokkos loop over [0, count): the only place that names a policy.
template <class Space, class Body>
void loop(const Queue&, const char* label, std::int64_t count, const Body& body) {
  using Policy = Kokkos::RangePolicy<Space, Kokkos::IndexType<std::int64_t>>;
  if (count == 0) return;
  // The name is a string on the heap, and nobody's unless a profiler listens.
  const bool named = Kokkos::Profiling::profileLibraryLoaded();
  Kokkos::parallel_for(named ? std::string(label) : std::string(), Policy(Space(), 0, count), body);
}

inline void need_f32(const Tensor& tensor) {
  ensure(tensor.dtype == DType::f32, "this kernel works on float tensors");
  ensure(tensor.data != nullptr || tensor.elems() == 0, "a kernel was given an empty tensor");
}

/// Calls run.operator()<T>() with the type in which elements of `type` are stored: the one switch between types. A
/// formula reads them as floats and gives a float.
template <class Run>
decltype(auto) with_element(DType type, Run&& run) {
  switch (type) {
    case DType::bf16:
      return run.template operator()<BFloat16>();
    case DType::f16:
      return run.template operator()<Float16>();
    default:
      ensure(type == DType::f32, "a kernel was given a tensor of bytes");
      return run.template operator()<float>();
  }
}

/// Calls run.operator()<Space, T>() for tensors that all store their elements alike.
template <class Run>
decltype(auto) on_elements(const Queue& queue, std::initializer_list<Tensor> tensors, Run&& run) {
  const DType type = tensors.begin()->dtype;
  for (const Tensor& tensor : tensors) {
    ensure(tensor.dtype == type, "a kernel was given tensors of different types");
    ensure(tensor.data != nullptr || tensor.elems() == 0, "a kernel was given an empty tensor");
  }
  return on_space(queue, [&]<class Space>() -> decltype(auto) {
    return with_element(type, [&]<class T>() -> decltype(auto) { return run.template operator()<Space, T>(); });
  });
}

template <class T>
T* elements(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

/// Temporary arrays of one kernel call. The memory stays with the thread, so repeated steps do not allocate.
class Scratch {
 public:
  explicit Scratch(const Queue& queue) : queue_(queue), arena_(arena()) {
    ensure(!arena_.busy, "kernel scratch is taken by one call at a time");
    arena_.busy = true;
    arena_.block = arena_.used = 0;
  }
  ~Scratch() { arena_.busy = false; }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* get(std::int64_t count) {
    const std::size_t bytes = (static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(T) + 63) / 64 * 64;
    while (arena_.block < arena_.blocks.size() && arena_.used + bytes > arena_.blocks[arena_.block].bytes()) {
      ++arena_.block;
      arena_.used = 0;
    }
    if (arena_.block == arena_.blocks.size()) {
      arena_.blocks.emplace_back(std::max(bytes, std::size_t{1} << 18), queue_.space);
    }
    T* data = reinterpret_cast<T*>(static_cast<char*>(arena_.blocks[arena_.block].data()) + arena_.used);
    arena_.used += bytes;
    return data;
  }

 private:
  struct Arena {
    std::deque<device::Buffer> blocks;
    std::size_t block = 0, used = 0;
    bool busy = false;
  };
  static Arena& arena() {
    thread_local Arena mine;
    return mine;
  }
  const Queue& queue_;
  Arena& arena_;
};

/// Where an element of a tensor [segments, elems per segment] lies in its wide row.
struct Layout {
  std::int64_t segments = 1, elems = 0;  ///< elems: of one segment
  std::int64_t c = 1, copies = 1;        ///< channels; rows side by side in a wide row
  std::int64_t width() const { return c * copies; }
  std::int64_t full_rows() const { return elems / width(); }
  std::int64_t wide_rows() const { return (elems + width() - 1) / width(); }
};

/// The layout of x: one segment, or one for each image.
inline Layout layout_of(const Tensor& x, bool per_image = false) {
  Layout layout;
  layout.segments = per_image ? x.shape.n : 1;
  layout.elems = per_image ? x.elems() / std::max<std::int64_t>(x.shape.n, 1) : x.elems();
  layout.c = x.shape.c;
  // Whole vectors of 16 where a few rows side by side make them, else at least long enough to hide the remainder.
  constexpr std::int64_t kVector = 16, kLong = 512, kMost = 64;
  const std::int64_t rows = std::max<std::int64_t>(layout.elems / std::max<std::int64_t>(layout.c, 1), 1);
  while (layout.copies < kMost && layout.copies < rows && layout.width() < kLong) ++layout.copies;
  for (std::int64_t more = layout.copies; more <= std::min({2 * layout.copies, kMost, rows}); ++more) {
    if (more * layout.c % kVector == 0) {
      layout.copies = more;
      break;
    }
  }
  return layout;
}

/// A layout without channels, for formulas that need none.
inline Layout flat(std::int64_t elems) {
  return {1, elems, 4096, 1};
}

/// body(segment, channel) for every pair.
template <class Space, class Body>
void channels(const Queue& queue, const char* label, std::int64_t segments, std::int64_t c, const Body& body) {
  loop<Space>(
      queue, label, segments, KOKKOS_LAMBDA(std::int64_t segment) {
        const Body f = body;
#pragma omp simd
        for (std::int64_t channel = 0; channel < c; ++channel) f(segment, channel);
      });
}

/// Per-channel values formula(segment, channel), repeated to the layout's width: [segments, width].
template <class Space, class Formula>
const float* channel_values(const Queue& queue, Scratch& scratch, const Layout& layout, std::int64_t segments,
                            const Formula& formula) {
  const std::int64_t c = layout.c, width = layout.width();
  float* values = scratch.get<float>(segments * width);
  for (std::int64_t first = 0; first < width; first += c) {
    channels<Space>(
        queue, "kernels/channel_values", segments, c, KOKKOS_LAMBDA(std::int64_t segment, std::int64_t channel) {
          values[segment * width + first + channel] = formula(segment, channel);
        });
  }
  return values;
}

/// The same for values that exist already; used in place where nothing has to be repeated or converted.
template <class Space, class T>
const float* repeated(const Queue& queue, Scratch& scratch, const Layout& layout, std::int64_t segments,
                      const T* values) {
  if constexpr (std::is_same_v<T, float>) {
    if (layout.copies == 1) return values;
  }
  const std::int64_t c = layout.c;
  return channel_values<Space>(
      queue, scratch, layout, segments,
      KOKKOS_LAMBDA(std::int64_t segment, std::int64_t channel)->float { return values[segment * c + channel]; });
}

namespace detail {

constexpr std::int64_t kTileElems = std::int64_t{1} << 19;  // elements of one unit of work
constexpr std::int64_t kUnroll = 4;                         // wide rows reduced together

/// Units of work: `rows` wide rows of one segment, or `segments` whole segments where those are small.
struct Tiling {
  std::int64_t rows = 1, segments = 1, per_segment = 1, count = 1;
};
inline Tiling tile(const Layout& layout, bool join_segments) {
  Tiling tiling;
  tiling.rows = std::max<std::int64_t>(kTileElems / std::max<std::int64_t>(layout.width(), 1), 256);
  tiling.per_segment = std::max<std::int64_t>((layout.wide_rows() + tiling.rows - 1) / tiling.rows, 1);
  if (join_segments && tiling.per_segment == 1) {
    tiling.segments = std::max<std::int64_t>(tiling.rows / std::max<std::int64_t>(layout.wide_rows(), 1), 1);
  }
  const std::int64_t groups = (layout.segments + tiling.segments - 1) / tiling.segments;
  tiling.count = layout.elems == 0 ? 0 : groups * tiling.per_segment;
  return tiling;
}

/// Copies past the caches: a large result that nobody reads soon need not be fetched before it is written.
template <class T>
inline void stream_out(const T* from, T* to, std::int64_t count) {
  std::int64_t i = 0;
#if defined(__SSE2__)
  constexpr std::int64_t kSize = sizeof(T), kLine = 64 / kSize, kVector = 16 / kSize;
  const std::int64_t head = static_cast<std::int64_t>((64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64) / kSize;
  for (; i < std::min(head, count); ++i) to[i] = from[i];
  for (; i + kLine <= count; i += kLine) {
    for (std::int64_t j = 0; j < kLine; j += kVector) {
      _mm_stream_ps(reinterpret_cast<float*>(to + i + j), _mm_loadu_ps(reinterpret_cast<const float*>(from + i + j)));
    }
  }
#endif
  for (; i < count; ++i) to[i] = from[i];
}

/// Host body of map(): one tile, row after row, because the processor's prefetchers follow straight streams best.
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
#if defined(__SSE2__)
    if constexpr (kStream) _mm_sfence();
#endif
  }

 private:
  void one(std::int64_t segment, std::int64_t i, std::int64_t k0, std::int64_t count, T* y) const {
    const Formula f = formula;  // a local copy: nothing that a store of results could alias
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) y[k] = f(segment, i + k, k0 + k);
  }
};

/// From this size on a fresh result is streamed: it would not survive in a core's share of the last-level cache.
constexpr std::int64_t kStreamBytes = std::int64_t{16} << 20;

}  // namespace detail

/// Whether a kernel's result lies apart from everything it reads.
enum class Result : bool { over_input, fresh };
inline Result result_kind(const Tensor& out, const Tensor& a) {
  return out.data == a.data ? Result::over_input : Result::fresh;
}
inline Result result_kind(const Tensor& out, const Tensor& a, const Tensor& b) {
  return out.data == b.data ? Result::over_input : result_kind(out, a);
}

/// out[i] = formula(segment, i, k) for every element i, k its place in the wide row.
template <class Space, class T, class Formula>
void map(const Queue& queue, const char* label, const Layout& layout, T* out, const Formula& formula,
         Result result = Result::over_input) {
  const detail::Tiling tiling = detail::tile(layout, false);
  if (result == Result::fresh &&
      layout.segments * layout.elems * static_cast<std::int64_t>(sizeof(T)) >= detail::kStreamBytes) {
    loop<Space>(queue, label, tiling.count, detail::HostMap<true, Formula, T>{formula, out, layout, tiling});
  } else {
    loop<Space>(queue, label, tiling.count, detail::HostMap<false, Formula, T>{formula, out, layout, tiling});
  }
}

/// What a reducing formula gives for one element: up to three terms to add up for its channel, and a value to store.
struct Terms {
  float a = 0, b = 0, c = 0, store = 0;
};

namespace detail {

/// Host body of reduce(): one tile into partial[item][N][width]. Floats are added over short runs of rows only, then in
/// double. Four rows are computed together, which quarters the traffic of the accumulators; as the prefetchers lose
/// four short streams in one page, the next four rows are asked for in straight order meanwhile.
template <int N, bool kStore, class Formula, class T>
struct HostReduce {
  static constexpr std::int64_t kRun = 64, kStep = 64;
  Formula formula;
  double* partial;
  float* runs;  // [item][N][width]
  T* store;
  Layout layout;
  Tiling tiling;

  void operator()(std::int64_t item) const {
    const std::int64_t width = layout.width(), group = item / tiling.per_segment;
    const std::int64_t first = group * tiling.segments, last = std::min(first + tiling.segments, layout.segments);
    const std::int64_t row = item % tiling.per_segment * tiling.rows;
    const std::int64_t end = std::min(row + tiling.rows, layout.wide_rows());
    double* const total = partial + item * N * width;
    float* const run = runs + item * N * width;
    std::fill_n(total, N * width, 0.0);
    for (std::int64_t segment = first; segment < last; ++segment) add(segment, row, end, run, total);
  }

 private:
  void add(std::int64_t segment, std::int64_t row, std::int64_t end, float* run, double* total) const {
    const std::int64_t full = std::min(end, layout.full_rows()), width = layout.width(), base = segment * layout.elems;
    while (row < end) {
      std::fill_n(run, N * width, 0.0F);
      const std::int64_t stop = std::min(row + kRun, end);
      for (; row + kUnroll <= std::min(stop, full); row += kUnroll) four(segment, base + row * width, run);
      for (; row < stop; ++row) {
        one(segment, base + row * width, std::min(width, layout.elems - row * width), run);
      }
#pragma omp simd
      for (std::int64_t k = 0; k < N * width; ++k) total[k] += static_cast<double>(run[k]);
    }
  }
  void four(std::int64_t segment, std::int64_t i0, float* run) const {
    const Formula f = formula;  // a local copy: nothing that a store of results could alias
    T* const y = store;
    const std::int64_t width = layout.width(), i1 = i0 + width, i2 = i1 + width, i3 = i2 + width;
    float *const a = run, *const b = run + width, *const c = run + 2 * width;
    for (std::int64_t k0 = 0; k0 < width; k0 += kStep) {
      const std::int64_t k1 = std::min(k0 + kStep, width);
      for (const auto* input : f.inputs()) {
        const auto* next = input + i0 + kUnroll * (width + k0);
        for (std::int64_t j = 0; j < kUnroll * kStep; j += static_cast<std::int64_t>(64 / sizeof(*input)))
          __builtin_prefetch(next + j, 0, 2);  // to L2: the first level has too few ways
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
  void one(std::int64_t segment, std::int64_t i, std::int64_t count, float* run) const {
    const Formula f = formula;
    T* const y = store;
    float *const a = run, *const b = run + layout.width(), *const c = run + 2 * layout.width();
#pragma omp simd
    for (std::int64_t k = 0; k < count; ++k) {
      const Terms p = f(segment, i + k, k);
      a[k] += p.a;
      if constexpr (N > 1) b[k] += p.b;
      if constexpr (N > 2) c[k] += p.c;
      if constexpr (kStore) y[i + k] = p.store;
    }
  }
};

}  // namespace detail

/// finish(segment, channel, sums) with sums[N] (double) the formula's terms added over the rows of the segment
/// (per_segment) or of all segments (segment = 0). With kStore the formula's `store` is written to `out` in passing.
template <class Space, int N, bool kStore = false, class Formula, class Finish, class T = float>
void reduce(const Queue& queue, const char* label, Scratch& scratch, const Layout& layout, bool per_segment,
            const Formula& formula, const Finish& finish, T* out = nullptr) {
  const detail::Tiling tiling = detail::tile(layout, !per_segment);
  const std::int64_t width = layout.width(), c = layout.c, copies = layout.copies;
  double* const partial = scratch.get<double>(tiling.count * N * width);
  float* const runs = scratch.get<float>(tiling.count * N * width);
  loop<Space>(queue, label, tiling.count,
              detail::HostReduce<N, kStore, Formula, T>{formula, partial, runs, out, layout, tiling});
  const std::int64_t items = per_segment ? tiling.per_segment : tiling.count;
  channels<Space>(
      queue, "kernels/reduce_finish", per_segment ? layout.segments : 1, c,
      KOKKOS_LAMBDA(std::int64_t segment, std::int64_t channel) {
        double sums[N] = {};
        const double* part = partial + segment * items * N * width + channel;
        for (std::int64_t item = 0; item < (tiling.count > 0 ? items : 0); ++item) {
          for (int n = 0; n < N; ++n, part += width) {
            for (std::int64_t copy = 0; copy < copies; ++copy) sums[n] += part[copy * c];
          }
        }
        finish(segment, channel, sums);
      });
}

}  // namespace seer::kernels::launch
