// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/swav.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "swav_formulas.hpp"

namespace seer::kernels {
namespace {

using launch::Scratch;
using launch::Terms;

struct ColumnTerm {
  using Element = float;
  const float* q;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(q);
  }
  std::array<const float*, 1> inputs() const { return {q}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return {q[i], 0, 0, 0};
  }
};

/// softmax(scores / t) from each row's largest entry and its reciprocal sum.
struct PredictionTerm {
  using Element = float;
  const float* scores;
  const float *largest, *reciprocal;
  double inv_temperature;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(scores);
    visit.segments(largest);
    visit.segments(reciprocal);
  }
  std::array<const float*, 1> inputs() const { return {scores}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t row, std::int64_t i, std::int64_t) const {
    return {exponential(scores[i] - largest[row], inv_temperature) * reciprocal[row], 0, 0, 0};
  }
};

struct PrototypeSum {
  double* sums;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&sum)[1]) const {
    sums[k] = sum[0];
  }
};

struct Raised {
  const float* data;
  float value;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(data);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return data[i] + value;
  }
};

/// What a formula of (team, row) gives for each row.
template <class Body, class T>
struct Kept {
  Body body;
  T* values;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t row) const {
    const T value = body(team, row);
    if (team.leads()) values[row] = value;
  }
};

/// The sum of body(team, row) over rows, added up in order.
template <class Body>
double sum_over_rows(Queue& queue, const char* label, std::int64_t count, const Body& body) {
  return launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    double* sums = scratch.get<double>(count);
    launch::rows<Space>(queue, label, count, Kept<Body, double>{body, sums});
    return launch::ordered_sum(launch::on_host(queue, sums, count), count);
  });
}

/// max over rows of value(team, row).
template <class Body>
float max_over_rows(Queue& queue, const char* label, std::int64_t count, const Body& body) {
  return launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    float* kept = scratch.get<float>(count);
    launch::rows<Space>(queue, label, count, Kept<Body, float>{body, kept});
    const float* values = launch::on_host(queue, kept, count);
    float most = -kInfinity;
    for (std::int64_t row = 0; row < count; ++row) most = std::max(most, values[row]);
    return most;
  });
}

}  // namespace

float maximum(Queue& queue, const Tensor& scores) {
  if (queue.only_plans(scores.bytes())) return 0;
  launch::need_f32(scores);
  return max_over_rows(queue, "kernels/maximum", scores.rows(), RowMaximum{scores.f32(), scores.shape.c});
}

double sinkhorn_exponentials(Queue& queue, const Tensor& scores, float maximum, float epsilon, const Tensor& q) {
  if (queue.only_plans(scores.bytes() + q.bytes())) return 1;
  launch::need_f32(scores);
  float* out = q.f32();
  const std::int64_t k_count = scores.shape.c, count = scores.rows();
  const double sum =
      sum_over_rows(queue, "kernels/sinkhorn_exponentials", count,
                    RowExponentials{scores.f32(), out, k_count, 1.0 / wide(epsilon), 60 * epsilon, maximum});
  if (sum < std::numeric_limits<double>::infinity()) return sum;  // also false for NaN, which must stay visible
  const float largest = max_over_rows(queue, "kernels/sinkhorn_largest", count, RowLargestFinite{out, k_count});
  if (largest < 0) return sum;  // nothing finite to take instead
  return sum_over_rows(queue, "kernels/sinkhorn_repair", count, RowRepair{out, k_count, largest});
}

void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums) {
  if (queue.only_plans(q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    launch::reduce<Space, 1>(queue, "kernels/sinkhorn_prototype_sums", scratch, launch::layout_of(q), false,
                             ColumnTerm{q.f32()}, PrototypeSum{sums});
  });
}

void sinkhorn_add(Queue& queue, const Tensor& q, float value) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    launch::map<Space>(queue, "kernels/sinkhorn_add", launch::flat(q.elems()), q.f32(), Raised{q.f32(), value});
  });
}

void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_scale", q.rows(), RowScale{q.f32(), factors, q.shape.c, row_target});
  });
}

bool sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k) {
  if (queue.only_plans(0)) return false;
  return launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    auto* const found = scratch.get<std::int64_t>(1);
    launch::rows<Space>(queue, "kernels/sinkhorn_any_empty", 1, FirstEmpty{sums, k, found});
    return *launch::on_host(queue, found, 1) >= 0;
  });
}

void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k) {
  if (queue.only_plans(0)) return;
  launch::on_space(queue, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_factors", 1, Factors{sums, k});
  });
}

void sinkhorn_harden(Queue& queue, const Tensor& q) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_harden", q.rows(), RowHarden{q.f32(), q.shape.c});
  });
}

double swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                          double weight, const Tensor& d_scores) {
  if (queue.only_plans(scores.bytes() + code_sum.bytes() + d_scores.bytes())) return 0;
  launch::need_f32(scores);
  launch::need_f32(code_sum);
  const double inv_temperature = 1.0 / wide(temperature), codes_f = codes, slope = weight * inv_temperature;
  return weight * sum_over_rows(queue, "kernels/swav_cross_entropy", scores.rows(),
                                RowCrossEntropy{scores.f32(), code_sum.f32(), d_scores.f32(), scores.shape.c,
                                                inv_temperature, codes_f, slope});
}

void add_predictions(Queue& queue, const Tensor& scores, float temperature, double* mean_prediction) {
  if (queue.only_plans(scores.bytes())) return;
  launch::need_f32(scores);
  launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    const float* s = scores.f32();
    const std::int64_t k_count = scores.shape.c, count = scores.rows();
    const double inv_temperature = 1.0 / wide(temperature);
    float *largest = scratch.get<float>(count), *reciprocal = scratch.get<float>(count);
    launch::rows<Space>(queue, "kernels/softmax_sums", count,
                        RowSoftmaxSums{s, k_count, inv_temperature, largest, reciprocal});
    launch::Layout layout;  // one segment a row: the formula needs the row
    layout.segments = count;
    layout.elems = layout.c = k_count;
    double* sums = scratch.get<double>(k_count);
    launch::reduce<Space, 1>(queue, "kernels/add_predictions", scratch, layout, false,
                             PredictionTerm{s, largest, reciprocal, inv_temperature}, PrototypeSum{sums});
    const double* added = launch::on_host(queue, sums, k_count);
    for (std::int64_t k = 0; k < k_count; ++k) mean_prediction[k] += added[k];
  });
}

double mean_row_entropy(Queue& queue, const Tensor& q) {
  if (queue.only_plans(q.bytes())) return 0;
  launch::need_f32(q);
  const std::int64_t count = q.rows();
  const double sum = sum_over_rows(queue, "kernels/row_entropy", count, RowEntropy{q.f32(), q.shape.c});
  return count > 0 ? sum / static_cast<double>(count) : 0.0;
}

}  // namespace seer::kernels
