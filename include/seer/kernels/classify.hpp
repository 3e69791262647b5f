// SPDX-License-Identifier: Apache-2.0
// Losses of classifiers (method.md 11.1, 11.2). scores, d_scores: [crops * images, classes], row = crop * images +
// image.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// The targets of images that have one class each, mixed with a partner's class, then smoothed.
struct ClassTargets {
  const std::int32_t* own = nullptr;      ///< [images]: class of each image
  const std::int32_t* partner = nullptr;  ///< [images]: class of the image that it is mixed with
  std::int64_t images = 0;
  float share = 1;      ///< of the own class; the partner's has the rest
  float smoothing = 0;  ///< part of the target that is spread over all classes
};

/// Softmax cross-entropy. sums[0] = sum of the rows' losses; sums[1] = number of rows where no score is above that of
/// the own class. d_scores = weight * gradient of sums[0].
void cross_entropy(Queue& queue, const Tensor& scores, const ClassTargets& targets, double weight,
                   const Tensor& d_scores, double* sums);

/// Binary cross-entropy of the sigmoid of each score. targets: [images, classes], from 0 to 1; negative: the entry is
/// left out. sums[0] = sum of the entries' losses; sums[1] = number of rows whose highest score has a target above 1/2.
/// d_scores = weight * gradient of sums[0].
void binary_cross_entropy(Queue& queue, const Tensor& scores, const float* targets, std::int64_t images, double weight,
                          const Tensor& d_scores, double* sums);

}  // namespace seer::kernels
