// SPDX-License-Identifier: Apache-2.0
// Convolution and GEMM: forward, backward to data and backward to weights. Host: oneDNN; device: cuDNN and cuBLASLt.
// All activations are NHWC. All weights are in the order of the checkpoints (OIHW, grouped: [c_out, c_in / groups, k,
// k]); an implementation does whatever reordering its library needs.
//
// Precision (method.md 5.3): activations are float, bf16 or f16, all of the same type within one call; this type is the
// one that the call computes in. Weights and their gradients are always float: an implementation rounds its packed copy
// of the weights. Sums are accumulated in float.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "seer/device/ledger.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::dnn {

using Direction = device::Work::Direction;

/// Geometry of a convolution. Square kernel, equal stride and padding in both directions, no dilation, no bias.
struct ConvShape {
  std::int64_t n = 1, h = 1, w = 1;  ///< of the source
  std::int64_t c_in = 1, c_out = 1;
  std::int64_t kernel = 1, stride = 1, pad = 0, groups = 1;
  std::int64_t out_h() const { return (h + 2 * pad - kernel) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * pad - kernel) / stride + 1; }
  device::Shape src() const { return {n, h, w, c_in}; }
  device::Shape dst() const { return {n, out_h(), out_w(), c_out}; }
  std::int64_t weight_elems() const { return c_out * (c_in / groups) * kernel * kernel; }
  /// Multiply-accumulates of one forward pass.
  std::int64_t macs() const { return n * out_h() * out_w() * weight_elems(); }
  /// True if the tensors, as they lie in memory, are matrices and the convolution is their product.
  bool is_matrix_product() const { return kernel == 1 && stride == 1 && pad == 0 && groups == 1; }
  auto operator<=>(const ConvShape&) const = default;
};

/// Weights, and a counter of their changes. An implementation may keep a packed copy as long as `version` stays the
/// same. Version 0: nothing is kept.
struct Weights {
  const void* data = nullptr;
  std::uint64_t version = 0;
};

enum class Accumulate : bool { no, yes };
enum class Transpose : bool { no, yes };

/// Not thread-safe. Each new shape is planned once; its primitives are cached. Errors: Error(device) naming the
/// library's status and the shape.
class Backend {
 public:
  virtual ~Backend() = default;

  /// forward: dst (the output) = conv(src, weight). backward_data: d_src = gradient with respect to src, from d_dst.
  /// With Accumulate::yes (backward_data, and only if can_add) adds to d_src instead.
  virtual void conv(device::Queue& queue, Direction direction, const ConvShape& shape, device::Tensor input,
                    Weights weight, device::Tensor output, Accumulate accumulate) = 0;
  void conv_forward(device::Queue& queue, const ConvShape& shape, device::Tensor src, Weights weight,
                    device::Tensor dst) {
    conv(queue, Direction::forward, shape, src, weight, dst, Accumulate::no);
  }
  void conv_backward_data(device::Queue& queue, const ConvShape& shape, device::Tensor d_dst, Weights weight,
                          device::Tensor d_src, Accumulate accumulate = Accumulate::no) {
    conv(queue, Direction::backward_data, shape, d_dst, weight, d_src, accumulate);
  }
  /// d_weight (OIHW, float) = or += gradient with respect to the weight.
  virtual void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src,
                                     device::Tensor d_dst, float* d_weight, Accumulate accumulate) = 0;
  /// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c) (+ bias[n] added to every row if not null). Row-major, dense; a and b of
  /// `type`, c and bias float; rounded operands, sums in float. A linear layer y = x W^T + bias is
  /// gemm(x, no, W, yes, y, bias).
  virtual void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
                    Transpose ta, const void* b, Transpose tb, float* c, Accumulate accumulate = Accumulate::no,
                    const float* bias = nullptr) = 0;
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, Transpose ta,
            const float* b, Transpose tb, float* c, Accumulate accumulate = Accumulate::no,
            const float* bias = nullptr) {
    gemm(queue, m, n, k, DType::f32, a, ta, b, tb, c, accumulate, bias);
  }

  /// True if conv_backward_data can add its result to d_src in the pass that computes it.
  virtual bool can_add(const ConvShape& shape, DType type) const = 0;

  /// True if the library supports all of the above in `type` on this processor.
  virtual bool supports(DType type) = 0;

  /// Limit on packed copies of weights kept between calls; 0 keeps none.
  virtual void set_packed_weights_limit(std::size_t bytes) = 0;
  /// Bytes of packed weights and scratch memory held now.
  virtual std::size_t held_bytes() const = 0;
  /// "oneDNN 2.6.3"
  virtual std::string describe() const = 0;
};

/// True if the host's library may use matrix units (AMX) for bf16 in this process: the processor has them, the system
/// permits them, and the library's own limit (ONEDNN_MAX_CPU_ISA) does not exclude them.
bool has_bf16_matrix_units();

/// Space::planned: records each call in the queue's ledger and requests the memory that the real one would, but runs
/// nothing. Space::device: computes on the stand-in device (device/stand_in.hpp).
std::unique_ptr<Backend> make_host_backend(device::Space space = device::Space::host);
/// Only records calls in the queue's ledger: for machines whose library is not available here.
std::unique_ptr<Backend> make_planned_backend();

}  // namespace seer::dnn
