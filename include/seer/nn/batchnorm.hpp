// SPDX-License-Identifier: Apache-2.0
// BatchNorm's parameters, running statistics and synchronisation (method.md 1.2, 5.4). The arithmetic over activations
// is in kernels/batchnorm; each block chooses the fused form that it uses.
#pragma once

#include <span>
#include <string>

#include "seer/kernels/batchnorm.hpp"
#include "seer/nn/context.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::nn {

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

  std::int64_t channels() const { return channels_; }

 private:
  std::int64_t channels_ = 0, gamma_ = 0, beta_ = 0, running_mean_ = 0, running_var_ = 0;
};

/// Borrows scratch for `count` packed sums (doubles) from the pool.
device::Loan sums_scratch(const Context& ctx, std::int64_t count);
inline double* doubles(const device::Loan& loan) {
  return static_cast<double*>(loan->data);
}

}  // namespace seer::nn
