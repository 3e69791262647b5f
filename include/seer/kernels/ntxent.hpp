// SPDX-License-Identifier: Apache-2.0
// SimCLR's contrastive loss (method.md 9): each crop's embedding is to be nearer to those of the same image's other
// crops than to all others. Columns of the products are the embeddings of all ranks, one rank's after the other; a
// rank's rows are crop * images + image.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// Where rows and columns of the products [crops * images, columns] belong.
struct Contrast {
  std::int64_t images = 0, crops = 0;  ///< of one rank
  std::int64_t first = 0;              ///< the column that is this rank's first row
  float temperature = 1;
};

/// From products z_i . z_j: of each row the logarithms of its sums of exp(z_i . z_j / t), over all columns but its own
/// and over its positives (the same image's other crops). sums[0] = sum over rows of their difference, the loss;
/// sums[1] = rows of which a positive is the largest of all. A row's own column becomes -inf.
void ntxent_sums(Queue& queue, const Tensor& products, const Contrast& contrast, float* log_all, float* log_positive,
                 double* sums);

/// Products become weight * (d loss / d product), of row and column together: times the embeddings of all ranks it is
/// the gradient of this rank's. log_all, log_positive: of all columns.
void ntxent_gradient(Queue& queue, const Tensor& products, const Contrast& contrast, const float* log_all,
                     const float* log_positive, double weight);

}  // namespace seer::kernels
