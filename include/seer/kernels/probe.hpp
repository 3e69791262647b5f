// SPDX-License-Identifier: Apache-2.0
// Linear classifiers that are trained side by side on the same rows (method.md 8.4): losses, gradients and updates of
// all heads at once. The products between are dnn::Backend::gemm. No call waits for the queue.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"

namespace seer::kernels {

/// `heads` classifiers of `classes` classes see the same `rows` rows of `width` values. Their weights lie one after the
/// other: [heads * classes, width]; their scores for a row as well: [rows, heads * classes].
struct ProbeShape {
  std::int64_t rows = 0, heads = 0, classes = 0, width = 0;
  std::int64_t columns() const { return heads * classes; }
};

/// scores become the gradient of each head's loss with respect to them; losses [heads]: the mean over the rows of the
/// cross-entropy with the labels.
void probe_cross_entropy(device::Queue& queue, const ProbeShape& shape, const std::int32_t* labels, float* scores,
                         double* losses);

/// The same with one sigmoid a class. truth [rows, classes]: 1 present, 0 absent, -1 left out. The loss is the sum over
/// the classes of the mean over the rows that are not left out.
void probe_binary_cross_entropy(device::Queue& queue, const ProbeShape& shape, const std::int8_t* truth, float* scores,
                                double* losses);

/// out = (x - mean) / sqrt(variance + 1e-5) of each column over the rows. `running` [2, width], mean and unbiased
/// variance, moves by a tenth towards them (one row: the variance stays).
void probe_normalise(device::Queue& queue, std::int64_t rows, std::int64_t width, const float* x, double* running,
                     float* out);
/// The same with the running mean and variance.
void probe_normalise_by(device::Queue& queue, std::int64_t rows, std::int64_t width, const float* x,
                        const double* running, float* out);

struct ProbeRule {
  bool adam = false;      ///< AdamW, else SGD with momentum
  bool nesterov = false;  ///< SGD
  bool bias_decays = false;
  float momentum = 0.9F, second = 0.95F;  ///< second: AdamW's beta 2
  std::int64_t update = 0;                ///< from 0; AdamW corrects its moments by it
};

/// An array and its moments. second: null for SGD.
struct ProbeState {
  float *value = nullptr, *momentum = nullptr, *second = nullptr;
};

/// Parameters of the heads. With `norm`, a head is weight (scale * x + shift) + bias of normalised rows x.
struct ProbeParameters {
  ProbeState weight;  ///< [heads * classes, width]
  ProbeState bias;    ///< [heads * classes]
  ProbeState norm;    ///< [heads, 2, width], scale and shift; null without
};

/// Weight and bias, of the same shapes, of the same function of normalised rows: scores = effective x + effective_bias.
void probe_effective(device::Queue& queue, const ProbeShape& shape, const float* weight, const float* bias,
                     const float* norm, float* effective, float* effective_bias);

/// One update of all heads. rates, decays [heads]. d_scores: the gradient of the scores; d_weight [heads * classes,
/// width]: d_scores^T x. The norm never decays.
void probe_update(device::Queue& queue, const ProbeShape& shape, const ProbeRule& rule, const float* rates,
                  const float* decays, const float* d_scores, const float* d_weight, const ProbeParameters& parameters);

}  // namespace seer::kernels
