// SPDX-License-Identifier: Apache-2.0
// Linear classifiers in double precision, on the host (method.md 8.5). The shape alone decides the order of every sum,
// so the bits are the same for every number of threads.
#pragma once

#include <cstdint>

namespace seer::kernels {

struct ClassifierShape {
  std::int64_t rows = 0, dimension = 0, classes = 0;
};

/// scores[i, c] = bias[c] + sum over j of x[i, j] weight[c, j].
void linear_scores(const ClassifierShape& shape, const double* x, const double* weight, const double* bias,
                   double* scores);

/// The gradient of a function of the scores: d_weight[c, j] = sum over i of d_scores[i, c] x[i, j], and
/// d_bias[c] = sum over i of d_scores[i, c].
void linear_gradient(const ClassifierShape& shape, const double* x, const double* d_scores, double* d_weight,
                     double* d_bias);

/// losses[i] = -log softmax(scores[i])[labels[i]]; the scores become its gradient. Labels: 0 to classes - 1.
void softmax_loss(const ClassifierShape& shape, const std::int32_t* labels, double* scores, double* losses);

/// losses[i] = sum over classes of log(1 + exp(-t s)), with t = 1 where truth[i, c] is 1, t = -1 where it is 0; entries
/// of -1 count nothing. The scores become its gradient.
void logistic_loss(const ClassifierShape& shape, const std::int8_t* truth, double* scores, double* losses);

}  // namespace seer::kernels
