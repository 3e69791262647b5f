// SPDX-License-Identifier: Apache-2.0
// BYOL's loss (method.md 10): pulls each crop's prediction towards the direction of the teacher's projections of the
// same image's other crops.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// predictions, targets: [crops * images, dim], row = crop * images + image, rows of length one. *sum = sum over
/// rows and the other crops of 2 - 2 (prediction . target); d_predictions = weight * its gradient.
void byol_loss(Queue& queue, const Tensor& predictions, const Tensor& targets, std::int64_t images, double weight,
               const Tensor& d_predictions, double* sum);

}  // namespace seer::kernels
