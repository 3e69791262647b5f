// SPDX-License-Identifier: Apache-2.0
// BatchNorm (method.md 1.2, 5.4) fused with what follows it in a RegNetY block, so that each activation is read and
// written as few times as possible. x: convolution output [n, h, w, c]. Per-channel arrays have c floats.
//
// Activations (x, y, shortcut, out and their gradients) are float, bf16 or f16, one type per call. Statistics and the
// per-image vectors (pooled, gate, d_pooled, d_gate) are float. Arithmetic is in float, sums are in double.
//
// Forward: sums (local) -> all-reduce by the caller -> statistics -> one of the apply functions.
// Backward: sums (local) -> all-reduce by the caller -> apply.
//
// On a device queue, all arrays lie on the device, including the sums: they are reduced over ranks there. A call
// returns as soon as its kernels are queued.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

enum class Relu : bool { no, yes };

/// One normalisation: y = (x - mean) * inv_std * gamma + beta.
struct BatchNorm {
  const float* mean = nullptr;
  const float* inv_std = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
};

/// Local sums, packed for one message: sums[0] = rows, sums[1..c] = sum of x, sums[1+c..2c] = sum of x^2 (double).
/// Accurate even if |mean| >> deviation: accumulates relative to each channel's first value and converts at the end.
void batchnorm_sums(Queue& queue, const Tensor& x, double* sums);

/// From reduced sums: mean and inv_std = 1/sqrt(biased variance + eps). If running_mean is not null, also updates
/// running = (1 - momentum) * running + momentum * batch, with the unbiased variance (times rows / (rows - 1)).
void batchnorm_statistics(Queue& queue, std::int64_t c, const double* sums, float eps, float* mean, float* inv_std,
                          float momentum = 0.1F, float* running_mean = nullptr, float* running_var = nullptr);
/// For evaluation: mean and inv_std from the running statistics.
void batchnorm_from_running(Queue& queue, std::int64_t c, const float* running_mean, const float* running_var,
                            float eps, float* mean, float* inv_std);

/// y = [relu](bn(x)). y may be x.
void batchnorm_apply(Queue& queue, const Tensor& x, const BatchNorm& bn, Relu relu, const Tensor& y);
/// pooled[n, c] = mean over h, w of relu(bn(x)). `open` [2, n, c], for the backward pass: the number of elements with
/// bn(x) > 0, and the sum of x - mean over these.
void batchnorm_relu_pool(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& pooled, float* open);
/// y = relu(bn(x)) * gate[n, c].
void batchnorm_relu_gate(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& gate, const Tensor& y);
/// y = relu(bn(x) + shortcut). If shortcut_bn is not null, the shortcut is normalised first.
void batchnorm_add_relu(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& shortcut,
                        const BatchNorm* shortcut_bn, const Tensor& y);

/// The gradient that reaches bn(x), in the three forms a block needs:
///   g = d_y                                   (relu == no)
///   g = d_y * [bn(x) > 0]                     (relu == yes)
///   g = (d_y * gate + d_pooled / (h*w)) * [bn(x) > 0]   (gate not null; gate and d_pooled are [n, c]; the sums of g
///                                                        follow from open and d_open, without another pass)
struct BatchNormGradient {
  Tensor d_y;
  Relu relu = Relu::no;
  const float* gate = nullptr;
  const float* d_pooled = nullptr;
  const float* open = nullptr;    ///< of batchnorm_relu_pool
  const float* d_open = nullptr;  ///< of gate_backward
};

/// d_gate[n, c] = sum over h, w of d_y * relu(bn(x)). d_open [2, n, c]: sums of d_y and of d_y * (x - mean) over the
/// elements with bn(x) > 0.
void gate_backward(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& d_y, const Tensor& d_gate,
                   float* d_open);
/// In place: d_out = d_out * [out > 0] (backward pass of the block's last ReLU).
void relu_backward(Queue& queue, const Tensor& out, const Tensor& d_out);

/// Local sums for one message: sums[0..c-1] = sum of g, sums[c..2c-1] = sum of g * (x - mean).
void batchnorm_backward_sums(Queue& queue, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                             double* sums);
/// One pass: relu_backward and batchnorm_backward_sums of the block's last normalisation, and of the shortcut's if
/// `shortcut` is not null.
void add_relu_backward_sums(Queue& queue, const Tensor& out, const Tensor& d_out, const Tensor& x, const BatchNorm& bn,
                            double* sums, const Tensor* shortcut, const BatchNorm* shortcut_bn, double* shortcut_sums);
/// d_beta = or += sum of g, d_gamma = or += inv_std * sum of g * (x - mean), from LOCAL sums (averaged over ranks
/// later).
void batchnorm_parameter_gradients(Queue& queue, std::int64_t c, const double* local_sums, const float* inv_std,
                                   float* d_gamma, float* d_beta, bool add = true);
/// d_x = gamma * inv_std * (g - mean(g) - (x - mean) * inv_std^2 * mean(g * (x - mean))). The means come
/// from `sums`, the reduced sums of the whole group, which has `rows` rows. d_x may be d_y.
void batchnorm_backward_apply(Queue& queue, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                              const double* sums, double rows, const Tensor& d_x);

}  // namespace seer::kernels
