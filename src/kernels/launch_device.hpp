// SPDX-License-Identifier: Apache-2.0
// Runs formulas on a device. A thread handles V neighbouring elements of a wide row (16 bytes if the layout allows) and
// walks down the rows. It reads its channels' parameters once into registers and moves activations as whole vectors.
// For this a formula lists its pointers by kind in `fields(visit)`: elements(p) is indexed by element, channels(p) by
// channel, images(p) by segment and channel, segments(p) by segment; the values of channels(p, make) are computed by
// each thread. The launcher copies the formula, points the copy to registers and calls it with indices into these, so
// host and device run the same formula. Part of launch.hpp.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "launch.hpp"
#include "seer/device/copy.hpp"

namespace seer::kernels::launch {

/// Keeps one instance per stream, since making one allocates and destroying one waits for its stream. They are never
/// destroyed, because a stream may end before Kokkos does.
inline const Device& device_of(const Queue& queue) {
  static std::mutex mutex;
  static auto* const instances = new std::map<void*, Device>;
  const std::lock_guard lock(mutex);
  const auto found = instances->find(queue.stream);
  if (found != instances->end()) return found->second;
  return instances->emplace(queue.stream, Device(static_cast<cudaStream_t>(queue.stream))).first->second;
}

namespace detail {

template <class Body>
struct DeviceChannels {
  Body body;
  std::int64_t c;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { body(i / c, i % c); }
};

constexpr int kTeam = 256;                                    // threads per team
constexpr std::int64_t kManyThreads = std::int64_t{1} << 18;  // enough to keep any device busy
constexpr int kMostInputs = 4, kMostParameters = 8;

/// Checks that all pointers indexed by element are aligned for vectors.
struct Aligned {
  bool yes = true;
  KOKKOS_FORCEINLINE_FUNCTION void elements(const auto*&... p) {
    yes = yes && ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
  }
  KOKKOS_FORCEINLINE_FUNCTION void channels(const auto&...) {}
  KOKKOS_FORCEINLINE_FUNCTION void images(const float*&) {}
  KOKKOS_FORCEINLINE_FUNCTION void segments(const float*&) {}
};

/// The arrays to which readers point a formula. They are separate from the readers, so that the compiler knows a
/// reader's count before it handles the arrays and can put these into registers.
template <int V>
struct ParameterStore {
  float values[kMostParameters][V];
};
template <int V, int kBytes = 4>
struct ElementStore {
  alignas(16) unsigned char values[kMostInputs][V * kBytes];
};

/// Reads the parameters of V elements, starting at index k of the wide row.
template <int V>
struct ParameterReader {
  std::int64_t segment, c;
  int k;
  float (*values)[V];
  int used = 0;
  KOKKOS_FORCEINLINE_FUNCTION void elements(const auto*&...) {}
  KOKKOS_FORCEINLINE_FUNCTION void channels(const float*& p) {
    read(p, [from = p](int channel) { return from[channel]; });
  }
  KOKKOS_FORCEINLINE_FUNCTION void channels(const float*& p, const auto& make) {
    read(p, [&make](int channel) { return make(0, channel); });
  }
  KOKKOS_FORCEINLINE_FUNCTION void images(const float*& p) {
    read(p, [from = p + segment * c](int channel) { return from[channel]; });
  }
  KOKKOS_FORCEINLINE_FUNCTION void segments(const float*& p) {
    values[used][0] = p[segment];
    p = values[used++];
  }

 private:
  KOKKOS_FORCEINLINE_FUNCTION void read(const float*& p, const auto& value) {
    const int count = static_cast<int>(c);
    int channel = k % count;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      values[used][j] = value(channel);
      channel = channel + 1 == count ? 0 : channel + 1;
    }
    p = values[used++];
  }
};

/// Moves sizeof(T) * V bytes between memory and registers, in the largest pieces possible.
template <int V, class T>
KOKKOS_FORCEINLINE_FUNCTION void read_vector(const T* from, T* to) {
  if constexpr (V * sizeof(T) % 16 == 0) {
#pragma unroll
    for (int part = 0; part < static_cast<int>(V * sizeof(T) / 16); ++part)
      reinterpret_cast<uint4*>(to)[part] = reinterpret_cast<const uint4*>(from)[part];
  } else if constexpr (V * sizeof(T) == 8) {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) to[j] = from[j];
  }
}

/// Reads V elements, starting at element i; only `count` of them exist.
template <int V, int kBytes = 4>
struct ElementReader {
  std::int64_t i;
  int count;
  unsigned char (*values)[V * kBytes];
  int used = 0;
  KOKKOS_FORCEINLINE_FUNCTION void elements(const auto*&... p) { (element(p), ...); }
  KOKKOS_FORCEINLINE_FUNCTION void channels(const auto&...) {}
  KOKKOS_FORCEINLINE_FUNCTION void images(const float*&) {}
  KOKKOS_FORCEINLINE_FUNCTION void segments(const float*&) {}

 private:
  template <class T>
  KOKKOS_FORCEINLINE_FUNCTION void element(const T*& p) {
    T* const local = reinterpret_cast<T*>(values[used++]);
    if (count == V) {
      read_vector<V>(p + i, local);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j)
        if (j < count)
          local[j] = p[i + j];
        else
          local[j] = 0.0F;
    }
    p = local;
  }
};

/// Uses an explicit store instruction for 16 bytes: compilers would merge the two branches and write single elements.
template <int V, class T>
KOKKOS_FORCEINLINE_FUNCTION void write(const T* from, T* to, int count) {
  if (count == V) {
#if defined(__CUDA_ARCH__)
    if constexpr (V * sizeof(T) == 16) {
      uint4 all;
      memcpy(&all, from, sizeof all);
      __stwb(reinterpret_cast<uint4*>(to), all);
      return;
    }
#endif
    read_vector<V>(from, to);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (j < count) to[j] = from[j];
  }
}

KOKKOS_FORCEINLINE_FUNCTION int there(int most, std::int64_t left) {
  return left < most ? static_cast<int>(left) : most;
}

/// A layout with its division into device threads.
struct Grid {
  std::int64_t segments, elems, c, width, wide_rows, columns;  ///< columns: threads per wide row
};
inline Grid grid_of(const Layout& layout, int vector) {
  return {layout.segments, layout.elems, layout.c, layout.width(), layout.wide_rows(), layout.width() / vector};
}

/// True if threads may handle V elements at once.
template <int V, class Formula>
bool vectors_fit(const Layout& layout, Formula formula, const void* out) {
  Aligned aligned;
  formula.fields(aligned);
  return V > 1 && layout.width() % V == 0 && (layout.segments == 1 || layout.elems % V == 0) && aligned.yes &&
         reinterpret_cast<std::uintptr_t>(out) % 16 == 0;
}

/// Calls run.operator()<V>() with the most elements that a thread may handle at once: 16 bytes; 8 bytes if only that
/// divides the images, as in 256GF's late stages; else one element.
template <class T, int kMost = static_cast<int>(16 / sizeof(T)), class Formula, class Run>
void with_vectors(const Layout& layout, const Formula& formula, const void* out, const Run& run) {
  if (vectors_fit<kMost>(layout, formula, out))
    run.template operator()<kMost>();
  else if (vectors_fit<kMost / 2>(layout, formula, out))
    run.template operator()<kMost / 2>();
  else
    run.template operator()<1>();
}

/// One thread of map(): V elements of every `groups`-th wide row, two rows at a time to have more loads in flight.
template <int V, class Formula, class T>
struct DeviceMap {
  static constexpr int kTogether = 2;
  Formula formula;
  T* out;
  Grid grid;
  std::int64_t groups;
  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t k = item % grid.columns * V, rest = item / grid.columns;
    const std::int64_t segment = rest / groups, base = segment * grid.elems + k;
    Formula f = formula;
    ParameterStore<V> kept;
    ParameterReader<V> parameters{segment, grid.c, static_cast<int>(k), kept.values};
    f.fields(parameters);
    for (std::int64_t row = rest % groups; row < grid.wide_rows; row += kTogether * groups) {
      // No branch around the code that sets the pointers: the compiler must know that they point to registers. Beyond
      // the end, it reads zeros and writes nothing.
      Formula g[kTogether];
      ElementStore<V> store[kTogether];
      ElementReader<V> in[kTogether];
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const std::int64_t i = (row + u * groups) * grid.width;
        g[u] = f;
        in[u].i = base + i;
        in[u].count = there(V, grid.elems - i - k);
        in[u].values = store[u].values;
        in[u].used = 0;
        g[u].fields(in[u]);
      }
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        alignas(16) T result[V];
#pragma unroll
        for (int j = 0; j < V; ++j) result[j] = g[u](0, j, j);
        write<V>(result, out + in[u].i, in[u].count);
      }
    }
  }
};

template <int V, class Formula, class T>
void run_map(const Queue& queue, const char* label, const Layout& layout, T* out, const Formula& formula) {
  const Grid grid = grid_of(layout, V);
  const std::int64_t threads = grid.segments * grid.columns * grid.wide_rows;
  const std::int64_t rows = std::clamp<std::int64_t>(threads / kManyThreads, 1, 16);  // per thread
  const std::int64_t groups = (grid.wide_rows + rows - 1) / rows;
  loop<Device>(queue, label, grid.segments * groups * grid.columns,
               DeviceMap<V, Formula, T>{formula, out, grid, groups});
}

}  // namespace detail

template <class T, class Formula>
void device_map(const Queue& queue, const char* label, const Layout& layout, T* out, const Formula& formula) {
  if (layout.segments * layout.elems == 0) return;
  detail::with_vectors<T>(layout, formula, out,
                          [&]<int V>() { detail::run_map<V>(queue, label, layout, out, formula); });
}

}  // namespace seer::kernels::launch

#include "reduce_device.hpp"
