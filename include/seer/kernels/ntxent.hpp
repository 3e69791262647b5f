// SPDX-License-Identifier: Apache-2.0
// SimCLR's contrastive loss (method.md 9): pulls each crop's embedding towards those of the same image's other crops
// and away from all others. The columns of the products are the embeddings of all ranks, in rank order; within a rank,
// row = crop * images + image.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// The layout of the products [crops * images, columns].
struct Contrast {
  std::int64_t images = 0, crops = 0;  ///< on one rank
  std::int64_t first = 0;              ///< the column of this rank's first row
  float temperature = 1;
};

/// products[i, j] = z_i . z_j. Writes for each row the logarithm of its sum of exp(z_i . z_j / t): log_all over all
/// columns but its own, log_positive over its positives (the same image's other crops). sums[0] = sum over rows of
/// log_all - log_positive, the loss; sums[1] = number of rows whose largest product is with a positive. Each row's
/// own column becomes -inf.
void ntxent_sums(Queue& queue, const Tensor& products, const Contrast& contrast, float* log_all, float* log_positive,
                 double* sums);

/// Replaces each product by weight * (d loss / d product), the loss of its row and its column together. This matrix
/// times the embeddings of all ranks is the gradient of this rank's embeddings. log_all, log_positive: for all columns.
void ntxent_gradient(Queue& queue, const Tensor& products, const Contrast& contrast, const float* log_all,
                     const float* log_positive, double weight);

}  // namespace seer::kernels
