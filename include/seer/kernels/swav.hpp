// SPDX-License-Identifier: Apache-2.0
// SwAV's assignment and loss (method.md 3). scores: [rows, k] float. The reductions over ranks lie with the caller
// (method/methods/swav); these are the local pieces.
//
// Everything a pointer points to lies where the queue's kernels are, results included. No call waits for the queue, so
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
/// q[rows, k] = exp((scores - *maximum) / epsilon); *sum = their sum, infinite where an entry is.
void sinkhorn_exponentials(Queue& queue, const Tensor& scores, const float* maximum, float epsilon, const Tensor& q,
                           double* sum);
/// Entries of q that are +inf become the largest finite one (method.md 3.2 step 3); *sum = the sum after that. Where no
/// entry is finite, nothing changes.
void sinkhorn_repair(Queue& queue, const Tensor& q, double* sum);
/// q *= 1 / *sum. *trouble becomes 1 where the sum is infinite or NaN, else it stays.
void sinkhorn_divide(Queue& queue, const Tensor& q, const double* sum, double* trouble);
/// sums[k] = local sums over rows for each prototype.
void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums);
/// *empty = 1 where the sum of some prototype is exactly zero, else 0.
void sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k, double* empty);
/// q += value, the repair of a prototype whose sum is exactly zero (method.md 3.2 step 5; then the sums are taken
/// again).
void sinkhorn_add(Queue& queue, const Tensor& q, float value);
/// In place: sums become factors, 1 / (k * sum), infinite ones the largest finite factor. *trouble becomes 1 where a
/// sum is zero, else it stays.
void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k, double* trouble);
/// One half-step pair: q[r, k] *= factors[k], then each row divided by its sum and multiplied by row_target; the last
/// pair has row_target 1.
void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target);
/// One-hot of each row's argmax (first of equals), in place.
void sinkhorn_harden(Queue& queue, const Tensor& q);

/// Cross-entropy of one crop's scores s [b, k] against the codes of the other assigned crops (method.md 3.3), t the
/// temperature: code_sum[b, k] is the sum of those codes, `codes` how many they are (each row of a code sums to 1).
/// *loss = weight * sum over b of (codes * logsumexp(s / t) - sum over k of code_sum * s / t). Where d_scores is not
/// empty it becomes that value's gradient, weight / t * (codes * softmax(s / t) - code_sum).
void swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                        double weight, const Tensor& d_scores, double* loss);

// Collapse diagnostics.
/// prediction[k] += softmax(scores / t), summed over rows.
void add_predictions(Queue& queue, const Tensor& scores, float temperature, double* prediction);
/// *sum = sum over rows of the entropy (nats) of each row of q.
void row_entropies(Queue& queue, const Tensor& q, double* sum);

}  // namespace seer::kernels
