// SPDX-License-Identifier: Apache-2.0
// SwAV's assignment and loss (spec 3). scores: [rows, k] float. The reductions over ranks lie with the caller
// (train/swav); these are the local pieces.
//
// On a device queue scores, codes and gradients lie on the device, and so do the prototypes' sums and factors, which
// are reduced over ranks there. Numbers that are returned and mean_prediction are the host's: the calls that give them
// wait for the queue. Their forms below that write a number through a pointer leave it where the queue's kernels are
// and wait for nothing, so that a whole assignment can be recorded (device/graph.hpp) and read once at its end.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// Largest entry (-inf for an empty tensor).
float maximum(Queue& queue, const Tensor& scores);
/// q[rows, k] = exp((scores - maximum) / epsilon), +inf entries replaced by the largest finite one (spec 3.2 step 3).
/// Returns the local sum.
double sinkhorn_exponentials(Queue& queue, const Tensor& scores, float maximum, float epsilon, const Tensor& q);
/// sums[k] (double) = local sums over rows for each prototype.
void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums);
/// q += value, the repair of a prototype whose sum is exactly zero (spec 3.2 step 5; then the sums are taken again).
void sinkhorn_add(Queue& queue, const Tensor& q, float value);
/// One half-step pair: q[r, k] *= factors[k] (1/K / prototype sum, inf replaced by the largest finite factor), then
/// each row divided by its sum and multiplied by row_target; the last pair has row_target 1.
void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target);
/// 1 / (k_total * sum), infinities replaced by the largest finite factor. In place. Where `trouble` is not null it
/// becomes 1 if a sum is zero, else it stays.
void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k, std::int32_t* trouble = nullptr);
/// Whether a prototype has no share at all (the sums are the same on all ranks: so is the answer).
bool sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k);
/// One-hot of each row's argmax (first of equals), in place.
void sinkhorn_harden(Queue& queue, const Tensor& q);

/// Cross-entropy of one crop's scores s [b, k] against the codes of the other assigned crops (spec 3.3), t the
/// temperature: code_sum[b, k] is the sum of those codes, `codes` how many they are (each row of a code sums to 1).
/// Returns weight * sum over b of (codes * logsumexp(s / t) - sum over k of code_sum * s / t). Where d_scores is not
/// empty it becomes that value's gradient, weight / t * (codes * softmax(s / t) - code_sum).
double swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                          double weight, const Tensor& d_scores);

/// Where a call leaves its numbers: the host's, or with the queue's kernels.
enum class Results : bool { on_host, on_queue };

/// Collapse diagnostics: adds softmax(scores/t) over rows to mean_prediction[k] (double, length k).
void add_predictions(Queue& queue, const Tensor& scores, float temperature, double* mean_prediction,
                     Results where = Results::on_host);
/// Mean over rows of the entropy (nats) of each row of q.
double mean_row_entropy(Queue& queue, const Tensor& q);

/// *largest = maximum(scores).
void maximum(Queue& queue, const Tensor& scores, float* largest);
/// The same exponentials, *sum their sum. Infinite entries stay: the sum then is no finite number.
void sinkhorn_exponentials(Queue& queue, const Tensor& scores, const float* maximum, float epsilon, const Tensor& q,
                           double* sum);
/// q *= 1 / *sum. *trouble becomes 1 where the sum is no finite number, else it stays: whoever finds it set at the end
/// makes the assignment again with the calls that repair.
void sinkhorn_divide(Queue& queue, const Tensor& q, const double* sum, std::int32_t* trouble);
/// *loss += what swav_cross_entropy returns.
void swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                        double weight, const Tensor& d_scores, double* loss);
/// *entropy = mean_row_entropy(q).
void mean_row_entropy(Queue& queue, const Tensor& q, double* entropy);

}  // namespace seer::kernels
