// SPDX-License-Identifier: Apache-2.0
// The layers of trunks and heads.
#pragma once

#include <span>
#include <string>

#include "seer/kernels/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

/// A linear layer without activation, on rows of floats. If ctx.compute is a half type, the operands of its products
/// are first rounded to it in scratch from the pool. Sums and results are float.
struct Linear {
  std::int64_t in = 0, out = 0;
  std::int64_t weight = 0, bias = -1;  ///< offsets of [out, in] and [out]; bias: negative if there is none

  void forward(const Context& ctx, device::Tensor x, device::Tensor y) const;
  /// Adds to the gradients of weight and bias.
  void backward_weights(const Context& ctx, device::Tensor x, device::Tensor d_y) const;
  void backward_data(const Context& ctx, device::Tensor d_y, device::Tensor d_x) const;
};

/// BatchNorm's parameters, running statistics and synchronisation (method.md 1.2, 5.4). The arithmetic over activations
/// is in kernels/batchnorm; each block chooses the fused form that it uses.
class BatchNormLayer {
 public:
  static constexpr float kEpsilon = 1e-5F, kMomentum = 0.1F;

  /// Kept for the backward pass: mean and inv_std ([2, c]) and the number of rows of the whole group.
  struct Saved {
    device::Loan statistics;
    double rows = 0;
    std::int64_t channels = 0;
    float* mean() const { return statistics->f32(); }
    float* inv_std() const { return statistics->f32() + channels; }
  };

  BatchNormLayer() = default;
  /// Registers "<prefix>.weight|bias" and the buffers "<prefix>.running_mean|running_var".
  BatchNormLayer(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, std::int64_t channels);

  /// One normalisation of a packed forward exchange.
  struct Part {
    const BatchNormLayer* layer;
    Saved* saved;
    device::Tensor x;
  };
  /// Computes the statistics of x for each part. In training, the local sums of all parts travel in ONE message.
  static void compute_statistics(const Context& ctx, std::span<const Part> parts);

  kernels::BatchNorm view(const Context& ctx, const Saved& saved) const;

  /// One layer's share of a packed backward exchange: 2c local sums at `sums`, reduced in place.
  struct BackwardPart {
    const BatchNormLayer* layer;
    const Saved* saved;
    double* sums;
  };
  /// Adds gamma's and beta's gradients from the local sums, then reduces all sums over the group in ONE message
  /// (`sums` of the parts must be consecutive in one array).
  static void reduce_backward(const Context& ctx, std::span<const BackwardPart> parts);

  /// The whole backward pass of one normalisation, with one message: local sums, reduction, d_x (which may be g.d_y).
  void backward(const Context& ctx, const Saved& saved, device::Tensor x, const kernels::BatchNormGradient& g,
                device::Tensor d_x) const;

 private:
  std::int64_t channels_ = 0, gamma_ = 0, beta_ = 0, running_mean_ = 0, running_var_ = 0;
};

/// Borrows scratch for `count` packed sums (doubles) from the pool.
inline device::Loan sums_scratch(const Context& ctx, std::int64_t count) {
  return ctx.pool->bytes(static_cast<std::size_t>(count) * sizeof(double));
}
inline double* doubles(const device::Loan& loan) {
  return static_cast<double*>(loan->data);
}

/// A convolution without bias and the BatchNorm of its output.
class ConvNorm {
 public:
  ConvNorm() = default;
  /// Registers `convolution`.weight and the BatchNorm `norm`. `shape`: channels, kernel, stride, groups; sets its pad.
  ConvNorm(ParameterTable& parameters, ParameterTable& buffers, const std::string& convolution, const std::string& norm,
           const dnn::ConvShape& shape);

  const BatchNormLayer& bn() const { return bn_; }
  std::int64_t width() const { return shape_.c_out; }
  /// The convolution's output.
  device::Loan convolve(const Context& ctx, device::Tensor x) const;
  /// Adds to the gradient of the weights.
  void backward_weights(const Context& ctx, device::Tensor x, device::Tensor d_y) const;
  /// The gradient of x, which has the shape `x`.
  device::Loan backward_data(const Context& ctx, device::Tensor d_y, device::Shape x) const;
  /// Adds it to d_x.
  void add_backward_data(const Context& ctx, device::Tensor d_y, device::Tensor d_x) const;

 private:
  dnn::ConvShape at(device::Shape x) const;

  std::int64_t weight_ = 0;
  dnn::ConvShape shape_;
  BatchNormLayer bn_;
};

}  // namespace seer::nn
