// SPDX-License-Identifier: Apache-2.0
// Applies a formula to a tensor. A formula is a small copyable struct of raw pointers whose call operator is a
// KOKKOS_FORCEINLINE_FUNCTION of one element (or of one matrix row). It is written once; launch_host.hpp runs it on the
// processor, launch_device.hpp on a device, and row_team.hpp runs formulas of matrix rows on both. Formulas are named
// structs because on_space() calls a generic lambda, and CUDA allows no kernel made of a lambda inside one. Included by
// src/kernels/*.cpp only (Kokkos headers stay inside .cpp files).
//
// Kernels walk a tensor [segments, rows, c] in "wide rows" of `width` = copies * c elements. With small or odd channel
// counts, a wide row joins several rows, so that it is always long and contiguous. A segment is one image if parameters
// or results differ between images, else the whole tensor. The tensor's shape alone decides how work is divided, and
// partial results are added in order, so the bits are the same in every run and for every number of threads.
#pragma once

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/parallel.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/recorder.hpp"
#include "seer/device/region.hpp"
#include "seer/device/tensor.hpp"
#if !defined(SEER_CUDA)
#include "seer/device/stand_in.hpp"
#endif

namespace seer::kernels::launch {

using device::Queue;
using device::Tensor;

#if defined(SEER_KERNELS_CUDA)
using Device = Kokkos::Cuda;
#else
struct Device;  // never defined
#endif
using Host = Kokkos::DefaultHostExecutionSpace;
template <class Space>
constexpr bool kOnDevice = std::is_same_v<Space, Device>;

/// What a kernel costs: bytes read and written, and launches on a device.
struct Cost {
  std::int64_t bytes = 0;
  int launches = 1;
};

/// Calls run.operator()<Space>() with the execution space of the queue: the one switch between back ends.
template <class Run>
decltype(auto) on_space(const Queue& queue, Run&& run) {
#if defined(SEER_KERNELS_CUDA)
  if (queue.space == device::Space::device) return run.template operator()<Device>();
#endif
#if defined(SEER_CUDA)
  ensure(queue.space == device::Space::host, "a kernel was asked for on a device queue: Kokkos has no Cuda");
#else
  const device::StandInAccess access(queue);
#endif
  return run.template operator()<Host>();
}

/// The same for a kernel. On a planned machine, records its cost instead. `name`: the calling function's.
template <class Run>
void on_space(const Queue& queue, const Cost& cost, Run&& run, const char* name = __builtin_FUNCTION()) {
  if (queue.only_plans(cost.bytes, DType::f32, cost.launches)) return;
  const device::Timed timed(queue, name, static_cast<double>(cost.bytes));
  on_space(queue, std::forward<Run>(run));
}

#if defined(SEER_KERNELS_CUDA)
/// The Kokkos execution space instance for the queue's stream.
inline const Device& device_of(const Queue& queue);
#endif

template <class Space>
Space space_of([[maybe_unused]] const Queue& queue) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>) return device_of(queue);
#endif
  if constexpr (!kOnDevice<Space>) {
    static const Space& host = *new Space();  // making one may allocate; outlives Kokkos, so never destroyed
    return host;
  }
}

/// Names are heap strings, so makes one only if a profiler is loaded.
inline std::string name_of(const char* label) {
  return Kokkos::Profiling::profileLibraryLoaded() ? std::string(label) : std::string();
}

/// Loop over [0, count), by Kokkos, or on the host by the rank's threads if it has several.
template <class Space, class Body>
void loop(const Queue& queue, const char* label, std::int64_t count, const Body& body) {
  using Policy = Kokkos::RangePolicy<Space, Kokkos::IndexType<std::int64_t>>;
  if (count == 0) return;
  if constexpr (!kOnDevice<Space>) {
    if (count > 1 && device::loop_threads() > 1) {
      const device::Region region(label);
      return device::in_parallel(count, body);
    }
  }
  Kokkos::parallel_for(name_of(label), Policy(space_of<Space>(queue), 0, count), body);
}

inline void need_f32(const Tensor& tensor) {
  ensure(tensor.dtype == DType::f32, "this kernel works on float tensors");
  ensure(tensor.data != nullptr || tensor.elems() == 0, "a kernel was given an empty tensor");
}

/// on_space for a kernel that works on these tensors of floats.
template <class Run>
void on_floats(const Queue& queue, std::initializer_list<Tensor> tensors, const Cost& cost, Run&& run,
               const char* name = __builtin_FUNCTION()) {
  for (const Tensor& tensor : tensors) need_f32(tensor);
  on_space(queue, cost, std::forward<Run>(run), name);
}

/// Calls run.operator()<T>() with the C++ type of elements of `type`: the one switch between types. Formulas read the
/// elements as floats and return floats.
template <class Run>
decltype(auto) with_element(DType type, Run&& run) {
  if (type == DType::bf16) return run.template operator()<BFloat16>();
  if (type == DType::f16) return run.template operator()<Float16>();
  ensure(type == DType::f32, "a kernel was given a tensor of bytes");
  return run.template operator()<float>();
}

/// Calls run.operator()<Space, T>() for tensors that all have the same element type. On a planned machine, records the
/// cost instead.
template <class Run>
void on_elements(const Queue& queue, std::initializer_list<Tensor> tensors, const Cost& cost, Run&& run,
                 const char* name = __builtin_FUNCTION()) {
  const DType type = tensors.begin()->dtype;
  if (queue.only_plans(cost.bytes, type, cost.launches)) return;
  for (const Tensor& tensor : tensors) {
    ensure(tensor.dtype == type, "a kernel was given tensors of different types");
    ensure(tensor.data != nullptr || tensor.elems() == 0, "a kernel was given an empty tensor");
#if !defined(SEER_CUDA)
    device::expect_reached(queue, tensor.data, "a kernel");
#endif
  }
  const device::Timed timed(queue, name, static_cast<double>(cost.bytes));
  on_space(queue, [&]<class Space>() { with_element(type, [&]<class T>() { run.template operator()<Space, T>(); }); });
}

template <class T>
T* elements(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

/// Temporary arrays of one kernel call, in memory that the queue's kernels can reach. The thread keeps the memory for
/// each queue, so repeated steps do not allocate. Calls on one device queue share it, because they run one at a time.
class Scratch {
 public:
  explicit Scratch(const Queue& queue) : queue_(queue), arena_(arena(queue)) {
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
    if (arena_.block == arena_.blocks.size())
      arena_.blocks.emplace_back(std::max(bytes, std::size_t{1} << 18), queue_.space);
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
  static Arena& arena([[maybe_unused]] const Queue& queue) {
#if defined(SEER_KERNELS_CUDA)
    thread_local std::map<void*, Arena> of_streams;
    if (queue.space == device::Space::device) return of_streams[queue.stream];
#endif
    thread_local Arena of_host, of_stand_in;
    return queue.space == device::Space::device ? of_stand_in : of_host;
  }
  const Queue& queue_;
  Arena& arena_;
};

/// How a tensor [segments, elems per segment] is divided into wide rows.
struct Layout {
  std::int64_t segments = 1, elems = 0;  ///< elems: per segment
  std::int64_t c = 1, copies = 1;        ///< channels; rows joined in a wide row
  std::int64_t width() const { return c * copies; }
  std::int64_t full_rows() const { return elems / width(); }
  std::int64_t wide_rows() const { return (elems + width() - 1) / width(); }
};

/// The layout of x, with one segment or one per image.
template <class Space>
Layout layout_of(const Tensor& x, bool per_image = false) {
  Layout layout;
  layout.segments = per_image ? x.shape.n : 1;
  layout.elems = per_image ? x.elems() / std::max<std::int64_t>(x.shape.n, 1) : x.elems();
  layout.c = x.shape.c;
  // Prefers a multiple of 16 elements if joining a few rows gives one; else a width that makes the remainder cheap.
  constexpr std::int64_t kVector = 16, kLong = 512, kMost = 64;
  const std::int64_t rows = std::max<std::int64_t>(layout.elems / std::max<std::int64_t>(layout.c, 1), 1);
  while (layout.copies < kMost && layout.copies < rows && layout.width() < kLong) ++layout.copies;
  // A device's vectors have 16 bytes. It may join more rows to get whole vectors: with an odd number of half-precision
  // channels it would otherwise move two bytes at a time.
  const std::int64_t vector = kOnDevice<Space> ? 16 / static_cast<std::int64_t>(dtype_bytes(x.dtype)) : kVector;
  const std::int64_t most = kOnDevice<Space> ? layout.copies + vector - 1 : 2 * layout.copies;
  for (std::int64_t more = layout.copies; more <= std::min({most, kMost, rows}); ++more) {
    if (more * layout.c % vector == 0) {
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

/// `fresh` if a kernel's result does not overlap its inputs.
enum class Result : bool { over_input, fresh };
inline Result result_kind(const Tensor& out, const auto&... inputs) {
  return ((out.data == inputs.data) || ...) ? Result::over_input : Result::fresh;
}

/// The result of a reducing formula for one element: up to three terms to sum per channel, and a value to store.
struct Terms {
  float a = 0, b = 0, c = 0, store = 0;
};

/// The elements themselves.
template <class T>
struct SumTerm {
  using Element = T;
  const T* x;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  std::array<const T*, 1> inputs() const { return {x}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return {x[i], 0, 0, 0};
  }
};

/// Finishes a sum: it becomes the channel's value, or is added to it.
template <class T>
struct Added {
  T* values;
  bool add = true;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&sum)[1]) const {
    values[k] = (add ? values[k] : T{}) + static_cast<T>(sum[0]);
  }
};

/// Finishes a sum over each image: writes sum / pixels.
struct Mean {
  float* out;
  std::int64_t c;
  double pixels;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t image, std::int64_t k, const double (&sum)[1]) const {
    out[image * c + k] = static_cast<float>(sum[0] / pixels);
  }
};

}  // namespace seer::kernels::launch

#if defined(SEER_KERNELS_CUDA)
#include "launch_device.hpp"
#endif
#include "launch_host.hpp"

namespace seer::kernels::launch {

/// Calls body(segment, channel) for every pair.
template <class Space, class Body>
void channels(const Queue& queue, const char* label, std::int64_t segments, std::int64_t c, const Body& body) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>) loop<Space>(queue, label, segments * c, detail::DeviceChannels<Body>{body, c});
#endif
  if constexpr (!kOnDevice<Space>) loop<Space>(queue, label, segments, detail::HostChannels<Body>{body, c});
}

/// Length, per segment, of a parameter's array. The host repeats the values over the wide row; on a device, every
/// thread keeps the values of its channels.
template <class Space>
std::int64_t stride_of(const Layout& layout) {
  return kOnDevice<Space> ? layout.c : layout.width();
}

namespace detail {

template <class Formula>
struct ChannelValues {
  Formula formula;
  float* values;
  std::int64_t stride, first;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t segment, std::int64_t channel) const {
    values[segment * stride + first + channel] = formula(segment, channel);
  }
};

template <class First, class Second>
struct TwoChannelValues {
  ChannelValues<First> first;
  ChannelValues<Second> second;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t segment, std::int64_t channel) const {
    first(segment, channel);
    second(segment, channel);
  }
};

template <class T>
struct Given {
  const T* values;
  std::int64_t c;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t segment, std::int64_t channel) const {
    return values[segment * c + channel];
  }
};

}  // namespace detail

/// Per-channel values formula(segment, channel), in the form that formulas read: [segments, stride_of(layout)].
template <class Space, class Formula>
const float* channel_values(const Queue& queue, Scratch& scratch, const Layout& layout, std::int64_t segments,
                            const Formula& formula) {
  const std::int64_t c = layout.c, stride = stride_of<Space>(layout);
  float* values = scratch.get<float>(segments * stride);
  for (std::int64_t first = 0; first < stride; first += c) {
    channels<Space>(queue, "kernels/channel_values", segments, c,
                    detail::ChannelValues<Formula>{formula, values, stride, first});
  }
  return values;
}

/// Two such arrays, made together.
template <class Space, class First, class Second>
std::pair<const float*, const float*> channel_values(const Queue& queue, Scratch& scratch, const Layout& layout,
                                                     std::int64_t segments, const First& first, const Second& second) {
  const std::int64_t c = layout.c, stride = stride_of<Space>(layout);
  float *const a = scratch.get<float>(segments * stride), *const b = scratch.get<float>(segments * stride);
  for (std::int64_t at = 0; at < stride; at += c) {
    channels<Space>(queue, "kernels/channel_values", segments, c,
                    detail::TwoChannelValues<First, Second>{{first, a, stride, at}, {second, b, stride, at}});
  }
  return {a, b};
}

/// The same for existing values. Returns `values` itself if nothing must be repeated or converted.
template <class Space, class T>
const float* repeated(const Queue& queue, Scratch& scratch, const Layout& layout, std::int64_t segments,
                      const T* values) {
  if constexpr (std::is_same_v<T, float>) {
    if (stride_of<Space>(layout) == layout.c) return values;
  }
  return channel_values<Space>(queue, scratch, layout, segments, detail::Given<T>{values, layout.c});
}

/// out[i] = formula(segment, i, k) for every element i, where k is its index in the wide row.
template <class Space, class T, class Formula>
void map(const Queue& queue, const char* label, const Layout& layout, T* out, const Formula& formula,
         [[maybe_unused]] Result result = Result::over_input) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>) device_map(queue, label, layout, out, formula);
#endif
  if constexpr (!kOnDevice<Space>) host_map(queue, label, layout, out, formula, result);
}

/// Calls finish(segment, channel, sums), where sums[N] (double) are the formula's terms summed over the rows of the
/// segment (per_segment) or of all segments (segment = 0). With kStore, also writes the formula's `store` to `out`.
template <class Space, int N, bool kStore = false, class Formula, class Finish, class T = float>
void reduce(const Queue& queue, const char* label, Scratch& scratch, const Layout& layout, bool per_segment,
            const Formula& formula, const Finish& finish, T* out = nullptr) {
#if defined(SEER_KERNELS_CUDA)
  if constexpr (kOnDevice<Space>)
    device_reduce<N, kStore>(queue, label, scratch, layout, per_segment, formula, finish, out);
#endif
  if constexpr (!kOnDevice<Space>)
    host_reduce<N, kStore>(queue, label, scratch, layout, per_segment, formula, finish, out);
}

}  // namespace seer::kernels::launch
