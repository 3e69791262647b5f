// SPDX-License-Identifier: Apache-2.0
// Convolution and GEMM, forward and both backwards. Host: oneDNN; device: cuDNN and cuBLASLt. All activations are
// NHWC; all weights are in the order of the checkpoints (OIHW, grouped: [c_out, c_in / groups, k, k]); a body owns
// whatever reordering its library wants.
//
// Precision (method.md 5.3): activations are float, bf16 or f16, those of one call alike; their type says in which one
// it computes. Weights and their gradients are float throughout: a body rounds its packed copy of the weights. Sums are
// taken in float.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::dnn {

/// A convolution's geometry. Square kernel, equal stride and padding in both directions, no dilation, no bias.
struct ConvShape {
  std::int64_t n = 1, h = 1, w = 1;  ///< of the source
  std::int64_t c_in = 1, c_out = 1;
  std::int64_t kernel = 1, stride = 1, pad = 0, groups = 1;
  std::int64_t out_h() const { return (h + 2 * pad - kernel) / stride + 1; }
  std::int64_t out_w() const { return (w + 2 * pad - kernel) / stride + 1; }
  std::int64_t weight_elems() const { return c_out * (c_in / groups) * kernel * kernel; }
  /// Multiply-accumulates of one forward pass.
  std::int64_t macs() const { return n * out_h() * out_w() * weight_elems(); }
  bool operator==(const ConvShape&) const = default;
};

/// Weights and how often they have changed: a body may keep its own packed copy while `version` stays the same.
/// Version 0: never keep.
struct Weights {
  const void* data = nullptr;
  std::uint64_t version = 0;
};

enum class Accumulate : bool { no, yes };
enum class Transpose : bool { no, yes };

/// Not thread-safe. Shapes seen once are planned once (primitives cached by shape).
/// Errors: Error(device) naming the library's status and the shape.
class Backend {
 public:
  virtual ~Backend() = default;

  /// dst = conv(src, weight).
  virtual void conv_forward(device::Queue& queue, const ConvShape& shape, device::Tensor src, Weights weight,
                            device::Tensor dst) = 0;
  /// d_src = gradient with respect to src.
  virtual void conv_backward_data(device::Queue& queue, const ConvShape& shape, device::Tensor d_dst, Weights weight,
                                  device::Tensor d_src) = 0;
  /// d_weight (OIHW, float) = or += gradient with respect to the weight.
  virtual void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src,
                                     device::Tensor d_dst, float* d_weight, Accumulate accumulate) = 0;
  /// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c) (+ bias[n] added to every row if not null). Row-major, dense. A linear
  /// layer y = x W^T + bias is gemm(x, no, W, yes, y, bias).
  virtual void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, Transpose ta,
                    const float* b, Transpose tb, float* c, Accumulate accumulate = Accumulate::no,
                    const float* bias = nullptr) = 0;

  /// The same with a and b of `type`, c and bias float: products of rounded numbers, added up in float.
  virtual void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
                    Transpose ta, const void* b, Transpose tb, float* c, Accumulate accumulate = Accumulate::no,
                    const float* bias = nullptr) = 0;

  /// Whether all of the above works in `type` with this library on this processor.
  virtual bool supports(DType type) = 0;

  /// Limit on packed copies of weights kept between calls; 0 keeps none.
  virtual void set_packed_weights_limit(std::size_t bytes) = 0;
  /// Bytes of packed weights and scratch memory held now.
  virtual std::size_t held_bytes() const = 0;
  /// "oneDNN 2.6.3"
  virtual std::string describe() const = 0;
};

/// Planned: tells the queue's ledger, asks for the memory that the real one would, and runs nothing. Space::device: on
/// the stand-in for one (device/stand_in.hpp).
std::unique_ptr<Backend> make_host_backend(device::Space space = device::Space::host);
/// Tells the queue's ledger and does no more: for a machine whose library is not here.
std::unique_ptr<Backend> make_planned_backend();

}  // namespace seer::dnn
