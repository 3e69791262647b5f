// SPDX-License-Identifier: Apache-2.0
#include "cudnn_conv.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "../describe.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"

namespace seer::dnn {
namespace {

char* at(void* base, std::size_t offset) {
  return static_cast<char*>(base) + offset;
}
std::size_t rows(const device::Shape& s, const ConvShape& conv) {
  return static_cast<std::size_t>(s.rows() * conv.groups);
}

/// The time that a stream spends on the work.
template <class Work>
double microseconds(cudaStream_t stream, Work&& work) {
  const device::Queue queue{.space = device::Space::device, .stream = stream};
  device::QueueClock clock(queue);
  clock.mark(0);
  work();
  clock.mark(0);
  double us = 0;
  clock.read([&](int, double ms) { us = ms * 1000; });
  return us;
}

/// Handles an engine that is unsupported, or that fails although the device still works (with a warning). Out-of-memory
/// and device errors are rethrown with the engine's name.
void pass_over(const Way& way, const cudnn::Failure& failure) {
  cudaGetLastError();  // clears the error, so that the next call does not find it
  if (failure.unsupported()) return;
  const bool no_memory = failure.status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                         failure.status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  if (no_memory || cudaDeviceSynchronize() != cudaSuccess)
    throw cudnn::Failure(failure.status, way.name + ": " + failure.what());
  log::warn(fmt::format("skipped an engine of cuDNN: {}: {}", way.name, failure.what()));
}

}  // namespace

CudnnConv::CudnnConv(const DeviceOptions& options, std::string machine, cudnnHandle_t handle, CublasltGemm& gemm,
                     Scratch& scratch)
    : options_(options),
      machine_(std::move(machine)),
      handle_(handle),
      gemm_(gemm),
      scratch_(scratch),
      packed_(device::Space::device),
      choices_(options.cache_dir, options.writes_cache) {}

bool CudnnConv::ready(Way& way) {
  try {
    if (!way.ready && way.product) {
      if (way.product->algorithm >= gemm_.algorithms(*way.product)) return false;
      way.workspace_bytes += gemm_.workspace_bytes(*way.product);
    } else if (!way.ready) {
      way.plan = cudnn::Plan({.handle = handle_}, way.engine);
      way.workspace_bytes += way.plan.workspace_bytes();  // placed after the copies
    }
    way.ready = true;
  } catch (const cudnn::Failure& failure) {
    pass_over(way, failure);
    return false;
  } catch (const NoAlgorithm&) {
    return false;
  }
  return way.workspace_bytes <= options_.workspace_bytes;
}

std::optional<double> CudnnConv::measure(cudaStream_t stream, Way& way, const Run& run, double best_us) {
  constexpr int kRuns = 5;  // in a row, as within an update: launches of the next run are then no part of the time
  constexpr double kHopeless = 4;
  if (!ready(way)) return std::nullopt;
  try {
    run(way);  // loads the kernel
    const double once = microseconds(stream, [&] { run(way); });
    if (once > kHopeless * best_us) return once;
    return microseconds(stream,
                        [&] {
                          for (int i = 0; i < kRuns; ++i) run(way);
                        }) /
           kRuns;
  } catch (const cudnn::Failure& failure) {
    pass_over(way, failure);
  } catch (const NoAlgorithm&) {
  }
  return std::nullopt;
}

Way& CudnnConv::chosen(cudaStream_t stream, const Key& key, const Run& run) {
  const auto known = chosen_.find(key);
  if (known != chosen_.end()) return known->second;
  const auto held_before = scratch_.bytes();
  auto [offered, tensor_cores_left_out] =
      ways({.handle = handle_}, options_, key.direction, key.shape, key.type, key.alignment);
  const auto text = shape_text(key.direction, key.shape);
  if (tensor_cores_left_out) {
    log::warn(fmt::format("{} runs without tensor cores: even for one image, they need more than {} MiB of workspace",
                          text, options_.workspace_bytes >> 20));
  }
  std::vector<Candidate> candidates;
  for (auto& way : offered) {
    candidates.push_back(
        {way.name, [&](double best_us) { return measure(stream, way, run, best_us); }, [&] { return ready(way); }});
  }
  const auto best = options_.measured
                        ? choose(choice_key(machine_, options_, key.direction, key.shape, key.type, key.alignment),
                                 candidates, choices_, options_.agree, text)
                        : first_ready(candidates, options_.agree, text);
  Way& way = chosen_.emplace(key, std::move(offered[best])).first->second;
  // Trials may have enlarged the scratch memory beyond what the chosen way needs.
  const auto wanted = std::max(way.workspace_bytes, held_before);
  if (scratch_.bytes() > wanted) {
    scratch_ = Scratch(device::Space::device);
    scratch_.need(wanted);
  }
  way.engine = {};  // the plan holds all it needs
  return way;
}

void CudnnConv::go(cudaStream_t stream, Direction direction, Way& way, const ConvShape& s, DType type, const void* in,
                   const void* weight, void* out) {
  void* base = way.workspace_bytes > 0 ? scratch_.need(way.workspace_bytes) : nullptr;
  if (way.product) return gemm_.run(stream, *way.product, in, weight, out, nullptr, base);
  const bool forward = direction == Direction::forward;
  ConvShape piece = s;
  piece.n = way.shape.n;
  const device::Shape src = piece.src(), dst = piece.dst();
  const device::Shape &from = forward ? src : dst, &to = forward ? dst : src;
  const auto copies = copies_of(way, direction, type);
  void *const x = at(base, copies.x), *const y = at(base, copies.y);
  PaddedWidths p(s);
  if (!forward) {
    std::swap(p.in, p.out);
    std::swap(p.padded_in, p.padded_out);
  }
  const auto in_bytes = bytes_of(from.elems(), type), out_bytes = bytes_of(to.elems(), type);
  for (std::int64_t first = 0; first < s.n; first += way.shape.n) {
    const auto index = static_cast<std::size_t>(first / way.shape.n);
    const void* part_in = static_cast<const char*>(in) + index * in_bytes;
    void* part_out = static_cast<char*>(out) + index * out_bytes;
    if (!way.padded) {
      way.plan.run(handle_, {{forward ? 1 : 3, part_in}, {2, weight}, {forward ? 3 : 1, part_out}}, base);
      continue;
    }
    pad(stream, rows(from, s), bytes_of(p.in, type), bytes_of(p.padded_in, type), part_in, forward ? x : y,
        Padding::add);
    way.plan.run(handle_, {{1, x}, {2, weight}, {3, y}}, at(base, copies.bytes));
    pad(stream, rows(to, s), bytes_of(p.out, type), bytes_of(p.padded_out, type), forward ? y : x, part_out,
        Padding::remove);
  }
}

void CudnnConv::go_weights(cudaStream_t stream, Way& way, const ConvShape& s, DType type, const void* src,
                           const void* d_dst, float* d_weight, Accumulate accumulate) {
  if (way.product && !way.padded) {  // the product writes directly to d_weight
    auto product = *way.product;
    product.add = accumulate == Accumulate::yes;
    product.align_c = alignment_bytes(d_weight);
    void* workspace = scratch_.need(gemm_.workspace_bytes(product));
    return gemm_.run(stream, product, d_dst, src, d_weight, nullptr, workspace);
  }
  const PaddedWidths p(s);
  ConvShape piece = s;
  piece.n = way.shape.n;
  const device::Shape x_shape = piece.src(), y_shape = piece.dst();
  const bool copied = way.padded || way.operands != type;
  const auto copies = copies_of(way, Direction::backward_weights, type);
  void* base = scratch_.need(way.workspace_bytes);
  void *const x = at(base, copies.x), *const y = at(base, copies.y), *const gradient = at(base, copies.gradient);
  for (std::int64_t first = 0; first < s.n; first += way.shape.n) {
    const void* part_x = static_cast<const char*>(src) + bytes_of(first * s.h * s.w * s.c_in, type);
    const void* part_y = static_cast<const char*>(d_dst) + bytes_of(first * s.out_h() * s.out_w() * s.c_out, type);
    if (way.padded) {
      pad(stream, rows(x_shape, s), bytes_of(p.in, type), bytes_of(p.padded_in, type), part_x, x, Padding::add);
      pad(stream, rows(y_shape, s), bytes_of(p.out, type), bytes_of(p.padded_out, type), part_y, y, Padding::add);
    } else if (copied) {
      widen(stream, x_shape.elems(), type, part_x, static_cast<float*>(x));
      widen(stream, y_shape.elems(), type, part_y, static_cast<float*>(y));
    }
    if (way.product) {
      auto product = *way.product;
      product.add = first > 0;
      gemm_.run(stream, product, y, x, gradient, nullptr, at(base, copies.bytes));
      if (first + way.shape.n < s.n) continue;  // the product itself adds up the pieces
    } else {
      const void *to_x = copied ? x : part_x, *to_y = copied ? y : part_y;
      way.plan.run(handle_, {{1, to_x}, {2, gradient}, {3, to_y}}, at(base, copies.bytes));
    }
    const bool add = accumulate == Accumulate::yes || (first > 0 && !way.product);
    unpack_weights(stream, s, way.gradient, way.padded, gradient, d_weight, add ? Accumulate::yes : Accumulate::no);
  }
}

void CudnnConv::run(cudaStream_t stream, Direction direction, const ConvShape& shape, DType type, const void* in,
                    Weights weight, void* out) {
  const bool in_place = weights_used_in_place(shape, type);
  const auto* weights = static_cast<const float*>(weight.data);
  auto alignment = std::min(alignment_bytes(in), alignment_bytes(out));
  if (in_place) alignment = std::min(alignment, alignment_bytes(weight.data));
  // Trials pack into their own buffer: a kept copy could have the layout of a way that is not chosen.
  device::Buffer trial_weights;
  const Way* packed_for = nullptr;
  const auto trial = [&](Way& way) {
    if (in_place) return go(stream, direction, way, shape, type, in, weight.data, out);
    const auto wanted = packed_copy_bytes(shape, type, way.padded);
    if (trial_weights.bytes() != wanted) {
      trial_weights = device::Buffer();
      trial_weights = device::Buffer(wanted, device::Space::device);
      packed_for = nullptr;
    }
    if (packed_for == nullptr || packed_for->padded != way.padded)
      pack_weights(stream, shape, type, way.padded, weights, trial_weights.data());
    packed_for = &way;
    go(stream, direction, way, shape, type, in, trial_weights.data(), out);
  };
  Way& way = chosen(stream, {direction, shape, type, alignment}, trial);
  go(stream, direction, way, shape, type, in, packed(stream, way, shape, type, weight), out);
}

const void* CudnnConv::packed(cudaStream_t stream, const Way& way, const ConvShape& shape, DType type, Weights weight) {
  if (weights_used_in_place(shape, type)) return weight.data;
  const int order = static_cast<int>(type) * 2 + (way.padded ? 1 : 0);
  return packed_.get(weight, order, packed_copy_bytes(shape, type, way.padded), [&](void* to) {
    pack_weights(stream, shape, type, way.padded, static_cast<const float*>(weight.data), to);
  });
}

void CudnnConv::add_to_data(cudaStream_t stream, const ConvShape& shape, DType type, const void* d_dst, Weights weight,
                            void* d_src) {
  const void* const operand = packed(stream, {}, shape, type, weight);
  auto product = data_product(Direction::backward_data, shape, type,
                              std::min({alignment_bytes(d_dst), alignment_bytes(d_src), alignment_bytes(operand)}));
  product.add = true;
  gemm_.run(stream, product, d_dst, operand, d_src, nullptr, scratch_.need(gemm_.workspace_bytes(product)));
}

void CudnnConv::run_weights(cudaStream_t stream, const ConvShape& shape, DType type, const void* src, const void* d_dst,
                            float* d_weight, Accumulate accumulate) {
  const auto alignment = std::min(alignment_bytes(src), alignment_bytes(d_dst));
  device::Buffer trial_gradient;  // d_weight may hold a gradient to be added to
  const auto trial = [&](Way& way) {
    const auto wanted = bytes_of(shape.weight_elems(), DType::f32);
    if (trial_gradient.bytes() != wanted) trial_gradient = device::Buffer(wanted, device::Space::device);
    go_weights(stream, way, shape, type, src, d_dst, static_cast<float*>(trial_gradient.data()), Accumulate::no);
  };
  Way& way = chosen(stream, {Direction::backward_weights, shape, type, alignment}, trial);
  go_weights(stream, way, shape, type, src, d_dst, d_weight, accumulate);
}

}  // namespace seer::dnn
