// SPDX-License-Identifier: Apache-2.0
// Plain kernels: libraries' copies of this kind are compiled at run time for each shape, or move one value at a time.
#include <cstdint>

#include "../weight_tiles.hpp"
#include "pack.hpp"
#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/device/cuda.hpp"

namespace seer::dnn {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void pack_tile(WeightTiles w, const float* oihw, T* krsc) {
  extern __shared__ float values[];
  const auto tile = w.tile(blockIdx.x);
  for (int i = threadIdx.x; i < tile.in * w.area; i += kThreads) WeightTiles::read_oihw(tile, i, oihw, values);
  __syncthreads();
  for (int i = threadIdx.x; i < tile.padded * w.area; i += kThreads) w.write_krsc(tile, i, values, krsc);
}

template <class T>
__global__ void unpack_tile(WeightTiles w, const T* krsc, float* oihw, bool add) {
  extern __shared__ float values[];
  const auto tile = w.tile(blockIdx.x);
  for (int i = threadIdx.x; i < tile.in * w.area; i += kThreads) w.read_krsc(tile, i, krsc, values);
  __syncthreads();
  for (int i = threadIdx.x; i < tile.in * w.area; i += kThreads) WeightTiles::write_oihw(tile, i, values, oihw, add);
}

template <class T, int V>
struct alignas(sizeof(T) * V) Values {
  T values[V];
};

/// V values a thread; both pointers are aligned to V of them.
template <class T, int V>
__global__ void widen_values(std::int64_t elems, const T* from, float* to) {
  const std::int64_t at = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * V;
  if (at + V <= elems) {
    const auto in = *reinterpret_cast<const Values<T, V>*>(from + at);
    Values<float, V> out;
    for (int i = 0; i < V; ++i) out.values[i] = in.values[i];
    *reinterpret_cast<Values<float, V>*>(to + at) = out;
  } else {
    for (std::int64_t i = at; i < elems; ++i) to[i] = from[i];
  }
}

std::size_t shared_bytes(const WeightTiles& w) {
  return static_cast<std::size_t>(w.elems()) * sizeof(float);
}

/// Calls `of` with a value of the type.
template <class Of>
void by_type(DType type, Of&& of) {
  switch (type) {
    case DType::f32:
      return of(float{});
    case DType::bf16:
      return of(BFloat16{});
    case DType::f16:
      return of(Float16{});
    case DType::u8:
      break;
  }
  throw Error(ExitCode::internal, "weights and activations are of a floating-point type");
}

}  // namespace

void pack_weights(cudaStream_t stream, const ConvShape& shape, DType type, bool padded, const float* oihw, void* krsc) {
  const WeightTiles w(shape, padded);
  by_type(type, [&](auto value) {
    pack_tile<<<static_cast<unsigned>(w.count), kThreads, shared_bytes(w), stream>>>(
        w, oihw, static_cast<decltype(value)*>(krsc));
  });
  device::check(cudaGetLastError(), "packing weights");
}

void unpack_weights(cudaStream_t stream, const ConvShape& shape, DType type, bool padded, const void* krsc, float* oihw,
                    Accumulate accumulate) {
  const WeightTiles w(shape, padded);
  by_type(type, [&](auto value) {
    unpack_tile<<<static_cast<unsigned>(w.count), kThreads, shared_bytes(w), stream>>>(
        w, static_cast<const decltype(value)*>(krsc), oihw, accumulate == Accumulate::yes);
  });
  device::check(cudaGetLastError(), "unpacking weights");
}

void widen(cudaStream_t stream, std::int64_t elems, DType type, const void* from, float* to) {
  constexpr int kWide = 4;
  const auto aligned = [](const void* data, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
  };
  by_type(type, [&](auto value) {
    using T = decltype(value);
    const auto* values = static_cast<const T*>(from);
    const bool wide = aligned(from, sizeof(T) * kWide) && aligned(to, sizeof(float) * kWide);
    const std::int64_t a_block = std::int64_t{kThreads} * (wide ? kWide : 1);
    const auto blocks = static_cast<unsigned>((elems + a_block - 1) / a_block);
    if (wide) {
      widen_values<T, kWide><<<blocks, kThreads, 0, stream>>>(elems, values, to);
    } else {
      widen_values<T, 1><<<blocks, kThreads, 0, stream>>>(elems, values, to);
    }
  });
  device::check(cudaGetLastError(), "widening values");
}

void pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from, void* to,
         Padding padding) {
  const bool add = padding == Padding::add;
  device::check(cudaMemcpy2DAsync(to, add ? padded : width, from, add ? width : padded, width, rows,
                                  cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpy2DAsync");
  if (!add || padded == width) return;
  device::check(cudaMemset2DAsync(static_cast<char*>(to) + width, padded, 0, padded - width, rows, stream),
                "cudaMemset2DAsync");
}

}  // namespace seer::dnn
