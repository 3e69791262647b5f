// SPDX-License-Identifier: Apache-2.0
// SwAV's assignment and loss (method.md 3). scores: [rows, k] float. These are the local pieces; the caller
// (method/methods/swav) reduces over ranks.
//
// All pointers, results included, refer to memory that the queue's kernels can reach. No call waits for the queue, so
// an assignment can be recorded (device/graph.hpp) and its results read once at its end (device/mirrored.hpp).
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// *largest = the largest entry (-inf for an empty tensor).
void maximum(Queue& queue, const Tensor& scores, float* largest);
/// q[rows, k] = exp((scores - *maximum) / epsilon); *sum = their sum, infinite if an entry is.
void sinkhorn_exponentials(Queue& queue, const Tensor& scores, const float* maximum, float epsilon, const Tensor& q,
                           double* sum);
/// Replaces +inf entries of q by the largest finite entry (method.md 3.2 step 3); *sum = the sum after that. If no
/// entry is finite, nothing changes.
void sinkhorn_repair(Queue& queue, const Tensor& q, double* sum);
/// q *= 1 / *sum. Sets *trouble to 1 if the sum is infinite or NaN.
void sinkhorn_divide(Queue& queue, const Tensor& q, const double* sum, double* trouble);
/// sums[k] = sum of column k (one prototype) over the local rows.
void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums);
/// *empty = 1 if the sum of some prototype is exactly zero, else 0.
void sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k, double* empty);
/// q += value: repairs a prototype whose sum is exactly zero (method.md 3.2 step 5). The sums must be computed again.
void sinkhorn_add(Queue& queue, const Tensor& q, float value);
/// In place: sums become factors 1 / (k * sum); infinite factors become the largest finite one. Sets *trouble to 1 if a
/// sum is zero.
void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k, double* trouble);
/// One column step and one row step: q[r, k] *= factors[k], then each row is divided by its sum and multiplied by
/// row_target, which is 1 in the last iteration.
void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target);
/// Replaces each row by the one-hot vector of its argmax (the first one if several are equal).
void sinkhorn_harden(Queue& queue, const Tensor& q);

/// Cross-entropy of one crop's scores s [b, k], at temperature t, against the codes of the other assigned crops
/// (method.md 3.3). code_sum[b, k] is the sum of those codes, `codes` their number (each row of a code sums to 1).
/// *loss = weight * sum over b of (codes * logsumexp(s / t) - sum over k of code_sum * s / t). d_scores becomes
/// the gradient of *loss, weight / t * (codes * softmax(s / t) - code_sum).
void swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                        double weight, const Tensor& d_scores, double* loss);

// Collapse diagnostics.
/// prediction[k] += softmax(scores / t), summed over rows.
void add_predictions(Queue& queue, const Tensor& scores, float temperature, double* prediction);
/// *sum = sum over rows of the entropy (nats) of each row of q.
void row_entropies(Queue& queue, const Tensor& q, double* sum);

}  // namespace seer::kernels
