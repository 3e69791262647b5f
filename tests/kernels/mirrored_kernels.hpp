// SPDX-License-Identifier: Apache-2.0
// The kernels as the suites call them: each takes its arrays to where the queue's kernels are and its results back. A
// kernel that leaves one number gives it as its value.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "mirrored_queue.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/kernels/swav.hpp"

namespace seer::kernels {

using Mirrored = test::MirroredQueue;

inline void relu(Mirrored& on, const Tensor& x) {
  on.run([&](Queue& queue, auto& there) { relu(queue, there(x)); });
}
inline void sigmoid(Mirrored& on, const Tensor& x) {
  on.run([&](Queue& queue, auto& there) { sigmoid(queue, there(x)); });
}
inline void sigmoid_backward(Mirrored& on, const Tensor& y, const Tensor& d_y) {
  on.run([&](Queue& queue, auto& there) { sigmoid_backward(queue, there(y), there(d_y)); });
}
inline void bias_gradient(Mirrored& on, const Tensor& d_y, float* d_bias) {
  on.run([&](Queue& queue, auto& there) { bias_gradient(queue, there(d_y), there(d_bias, d_y.shape.c)); });
}
inline void global_average_pool(Mirrored& on, const Tensor& x, const Tensor& pooled) {
  on.run([&](Queue& queue, auto& there) { global_average_pool(queue, there(x), there(pooled)); });
}
inline void global_average_pool_backward(Mirrored& on, const Tensor& d_pooled, const Tensor& d_x) {
  on.run([&](Queue& queue, auto& there) { global_average_pool_backward(queue, there(d_pooled), there(d_x)); });
}
inline void l2_normalize(Mirrored& on, const Tensor& x, const Tensor& y, float* norms) {
  on.run([&](Queue& queue, auto& there) { l2_normalize(queue, there(x), there(y), there(norms, x.rows())); });
}
inline void l2_normalize_backward(Mirrored& on, const Tensor& y, const float* norms, const Tensor& d_y,
                                  const Tensor& d_x) {
  on.run([&](Queue& queue, auto& there) {
    l2_normalize_backward(queue, there(y), there(norms, y.rows()), there(d_y), there(d_x));
  });
}
inline void copy(Mirrored& on, const Tensor& src, const Tensor& dst) {
  on.run([&](Queue& queue, auto& there) { copy(queue, there(src), there(dst)); });
}
inline void cast(Mirrored& on, const Tensor& src, const Tensor& dst) {
  on.run([&](Queue& queue, auto& there) { cast(queue, there(src), there(dst)); });
}
inline void add(Mirrored& on, const Tensor& src, const Tensor& dst) {
  on.run([&](Queue& queue, auto& there) { add(queue, there(src), there(dst)); });
}
inline void scale(Mirrored& on, const Tensor& x, float factor) {
  on.run([&](Queue& queue, auto& there) { scale(queue, there(x), factor); });
}
inline void fill(Mirrored& on, const Tensor& x, float value) {
  on.run([&](Queue& queue, auto& there) { fill(queue, there(x), value); });
}

inline void batchnorm_sums(Mirrored& on, const Tensor& x, double* sums) {
  on.run([&](Queue& queue, auto& there) { batchnorm_sums(queue, there(x), there(sums, 2 * x.shape.c + 1)); });
}
inline void batchnorm_statistics(Mirrored& on, std::int64_t c, const double* sums, float eps, float* mean,
                                 float* inv_std, float momentum = 0.1F, float* running_mean = nullptr,
                                 float* running_var = nullptr) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_statistics(queue, c, there(sums, 2 * c + 1), eps, there(mean, c), there(inv_std, c), momentum,
                         there(running_mean, c), there(running_var, c));
  });
}
inline void batchnorm_from_running(Mirrored& on, std::int64_t c, const float* running_mean, const float* running_var,
                                   float eps, float* mean, float* inv_std) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_from_running(queue, c, there(running_mean, c), there(running_var, c), eps, there(mean, c),
                           there(inv_std, c));
  });
}
inline void batchnorm_apply(Mirrored& on, const Tensor& x, const BatchNorm& bn, Relu relu, const Tensor& y) {
  on.run([&](Queue& queue, auto& there) { batchnorm_apply(queue, there(x), there(bn, x.shape.c), relu, there(y)); });
}
inline void batchnorm_relu_pool(Mirrored& on, const Tensor& x, const BatchNorm& bn, const Tensor& pooled, float* open) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_relu_pool(queue, there(x), there(bn, x.shape.c), there(pooled), there(open, 2 * pooled.elems()));
  });
}
inline void batchnorm_relu_gate(Mirrored& on, const Tensor& x, const BatchNorm& bn, const Tensor& gate,
                                const Tensor& y) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_relu_gate(queue, there(x), there(bn, x.shape.c), there(gate), there(y));
  });
}
inline void batchnorm_add_relu(Mirrored& on, const Tensor& x, const BatchNorm& bn, const Tensor& shortcut,
                               const BatchNorm* shortcut_bn, const Tensor& y) {
  on.run([&](Queue& queue, auto& there) {
    const BatchNorm second = shortcut_bn != nullptr ? there(*shortcut_bn, x.shape.c) : BatchNorm{};
    batchnorm_add_relu(queue, there(x), there(bn, x.shape.c), there(shortcut),
                       shortcut_bn != nullptr ? &second : nullptr, there(y));
  });
}
inline void gate_backward(Mirrored& on, const Tensor& x, const BatchNorm& bn, const Tensor& d_y, const Tensor& d_gate,
                          float* d_open) {
  on.run([&](Queue& queue, auto& there) {
    gate_backward(queue, there(x), there(bn, x.shape.c), there(d_y), there(d_gate), there(d_open, 2 * d_gate.elems()));
  });
}
inline void relu_backward(Mirrored& on, const Tensor& out, const Tensor& d_out) {
  on.run([&](Queue& queue, auto& there) { relu_backward(queue, there(out), there(d_out)); });
}
inline void batchnorm_backward_sums(Mirrored& on, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                                    double* sums) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_backward_sums(queue, there(x), there(bn, x.shape.c), there(g), there(sums, 2 * x.shape.c));
  });
}
inline void add_relu_backward_sums(Mirrored& on, const Tensor& out, const Tensor& d_out, const Tensor& x,
                                   const BatchNorm& bn, double* sums, const Tensor* shortcut,
                                   const BatchNorm* shortcut_bn, double* shortcut_sums) {
  on.run([&](Queue& queue, auto& there) {
    const std::int64_t c = x.shape.c;
    const Tensor other = shortcut != nullptr ? there(*shortcut) : Tensor{};
    const BatchNorm second = shortcut_bn != nullptr ? there(*shortcut_bn, c) : BatchNorm{};
    add_relu_backward_sums(queue, there(out), there(d_out), there(x), there(bn, c), there(sums, 2 * c),
                           shortcut != nullptr ? &other : nullptr, shortcut_bn != nullptr ? &second : nullptr,
                           there(shortcut_sums, 2 * c));
  });
}
inline void batchnorm_parameter_gradients(Mirrored& on, std::int64_t c, const double* local_sums, const float* inv_std,
                                          float* d_gamma, float* d_beta) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_parameter_gradients(queue, c, there(local_sums, 2 * c), there(inv_std, c), there(d_gamma, c),
                                  there(d_beta, c));
  });
}
inline void batchnorm_backward_apply(Mirrored& on, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                                     const double* sums, double rows, const Tensor& d_x) {
  on.run([&](Queue& queue, auto& there) {
    batchnorm_backward_apply(queue, there(x), there(bn, x.shape.c), there(g), there(sums, 2 * x.shape.c), rows,
                             there(d_x));
  });
}

/// As far as ranges reach.
inline std::int64_t end_of(std::span<const Range> ranges) {
  std::int64_t end = 0;
  for (const Range& range : ranges) end = std::max(end, range.end);
  return end;
}
inline void squared_norms(Mirrored& on, const float* x, std::span<const Range> ranges, double* squares) {
  on.run([&](Queue& queue, auto& there) {
    const FlatRanges table(queue.space, ranges);
    squared_norms(queue, table, there(x, end_of(ranges)), there(squares, ranges.size()));
    queue.wait();
  });
}
/// Without `own` all ranges obey the rule.
inline void optimizer_update(Mirrored& on, std::span<const Range> ranges, std::span<const RangeRule> own,
                             const double* parameter_squares, const double* gradient_squares, const UpdateRule& rule,
                             const float* gradients, float* momenta, float* parameters,
                             double* next_squares = nullptr) {
  on.run([&](Queue& queue, auto& there) {
    const FlatRanges table(queue.space, ranges);
    const std::int64_t count = end_of(ranges);
    optimizer_update(queue, table, there(own.data(), own.size()), there(parameter_squares, ranges.size()),
                     there(gradient_squares, ranges.size()), there(&rule, 1), there(gradients, count),
                     there(momenta, count), there(parameters, count), there(next_squares, ranges.size()));
    queue.wait();
  });
}
inline void normalize_rows(Mirrored& on, const Tensor& matrix, float tolerance = 0) {
  on.run([&](Queue& queue, auto& there) { normalize_rows(queue, there(matrix), tolerance); });
}
inline std::int64_t first_beyond(Mirrored& on, const float* x, std::int64_t count, float limit) {
  std::int64_t place = -2;
  on.run([&](Queue& queue, auto& there) { first_beyond(queue, there(x, count), count, limit, there(&place, 1)); });
  return place;
}
inline std::int64_t first_non_finite(Mirrored& on, const float* x, std::int64_t count) {
  return first_beyond(on, x, count, std::numeric_limits<float>::max());
}

inline float maximum(Mirrored& on, const Tensor& scores) {
  float largest = 0;
  on.run([&](Queue& queue, auto& there) { maximum(queue, there(scores), there(&largest, 1)); });
  return largest;
}
inline double sinkhorn_exponentials(Mirrored& on, const Tensor& scores, float maximum, float epsilon, const Tensor& q) {
  double sum = -1;
  on.run([&](Queue& queue, auto& there) {
    sinkhorn_exponentials(queue, there(scores), there(&maximum, 1), epsilon, there(q), there(&sum, 1));
  });
  return sum;
}
inline void sinkhorn_repair(Mirrored& on, const Tensor& q, double* sum) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_repair(queue, there(q), there(sum, 1)); });
}
inline void sinkhorn_divide(Mirrored& on, const Tensor& q, const double* sum, double* trouble) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_divide(queue, there(q), there(sum, 1), there(trouble, 1)); });
}
inline void sinkhorn_prototype_sums(Mirrored& on, const Tensor& q, double* sums) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_prototype_sums(queue, there(q), there(sums, q.shape.c)); });
}
inline void sinkhorn_add(Mirrored& on, const Tensor& q, float value) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_add(queue, there(q), value); });
}
inline void sinkhorn_scale(Mirrored& on, const Tensor& q, const double* factors, double row_target) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_scale(queue, there(q), there(factors, q.shape.c), row_target); });
}
inline void sinkhorn_factors(Mirrored& on, double* sums, std::int64_t k, double* trouble) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_factors(queue, there(sums, k), k, there(trouble, 1)); });
}
inline bool sinkhorn_any_empty(Mirrored& on, const double* sums, std::int64_t k) {
  double empty = -1;
  on.run([&](Queue& queue, auto& there) { sinkhorn_any_empty(queue, there(sums, k), k, there(&empty, 1)); });
  EXPECT_TRUE(empty == 0 || empty == 1) << empty;
  return empty == 1;
}
inline void sinkhorn_harden(Mirrored& on, const Tensor& q) {
  on.run([&](Queue& queue, auto& there) { sinkhorn_harden(queue, there(q)); });
}
inline double swav_cross_entropy(Mirrored& on, const Tensor& scores, const Tensor& code_sum, int codes,
                                 float temperature, double weight, const Tensor& d_scores) {
  double loss = 0.5;
  on.run([&](Queue& queue, auto& there) {
    swav_cross_entropy(queue, there(scores), there(code_sum), codes, temperature, weight, there(d_scores),
                       there(&loss, 1));
  });
  return loss;
}
inline void add_predictions(Mirrored& on, const Tensor& scores, float temperature, double* prediction) {
  on.run([&](Queue& queue, auto& there) {
    add_predictions(queue, there(scores), temperature, there(prediction, scores.shape.c));
  });
}
inline double row_entropies(Mirrored& on, const Tensor& q) {
  double sum = -1;
  on.run([&](Queue& queue, auto& there) { row_entropies(queue, there(q), there(&sum, 1)); });
  return sum;
}

}  // namespace seer::kernels
