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
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(q); }
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
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
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

struct AddedSum {
  double* sums;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&sum)[1]) const {
    sums[k] += sum[0];
  }
};

struct Raised {
  const float* data;
  float value;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(data); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return data[i] + value;
  }
};

/// *out = the largest of body(team, row) over rows.
template <class Space, class Body>
void max_over_rows(Queue& queue, Scratch& scratch, const char* label, std::int64_t count, const Body& body,
                   float* out) {
  float* kept = scratch.get<float>(count);
  launch::rows<Space>(queue, label, count, Kept<Body, float>{body, kept});
  launch::rows<Space>(queue, "kernels/largest", 1, Largest{kept, out, count});
}

}  // namespace

void maximum(Queue& queue, const Tensor& scores, float* largest) {
  launch::on_floats(queue, {scores}, {scores.bytes(), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    max_over_rows<Space>(queue, scratch, "kernels/maximum", scores.rows(), RowMaximum{scores.f32(), scores.shape.c},
                         largest);
  });
}

void sinkhorn_exponentials(Queue& queue, const Tensor& scores, const float* maximum, float epsilon, const Tensor& q,
                           double* sum) {
  sum_over_rows(queue, "kernels/sinkhorn_exponentials", {scores, q},
                RowExponentials{scores.f32(), q.f32(), scores.shape.c, 1.0 / wide(epsilon), 60 * epsilon, maximum},
                sum);
}

void sinkhorn_repair(Queue& queue, const Tensor& q, double* sum) {
  launch::on_floats(queue, {q}, {3 * q.bytes(), 4}, [&]<class Space>() {
    Scratch scratch(queue);
    const std::int64_t k_count = q.shape.c, count = q.rows();
    float* largest = scratch.get<float>(1);
    double* sums = scratch.get<double>(count);
    max_over_rows<Space>(queue, scratch, "kernels/sinkhorn_largest", count, RowLargestFinite{q.f32(), k_count},
                         largest);
    launch::rows<Space>(queue, "kernels/sinkhorn_repair", count,
                        Kept<RowRepair, double>{{q.f32(), k_count, largest}, sums});
    launch::rows<Space>(queue, "kernels/total", 1, Total{sums, sum, count, 1});
  });
}

void sinkhorn_divide(Queue& queue, const Tensor& q, const double* sum, double* trouble) {
  launch::on_floats(queue, {q}, {2 * q.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_divide", q.rows(), RowDivide{q.f32(), sum, trouble, q.shape.c});
  });
}

void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums) {
  launch::on_floats(queue, {q}, {q.bytes(), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    launch::reduce<Space, 1>(queue, "kernels/sinkhorn_prototype_sums", scratch, launch::layout_of<Space>(q), false,
                             ColumnTerm{q.f32()}, PrototypeSum{sums});
  });
}

void sinkhorn_add(Queue& queue, const Tensor& q, float value) {
  launch::on_floats(queue, {q}, {2 * q.bytes()}, [&]<class Space>() {
    launch::map<Space>(queue, "kernels/sinkhorn_add", launch::flat(q.elems()), q.f32(), Raised{q.f32(), value});
  });
}

void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target) {
  launch::on_floats(queue, {q}, {2 * q.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_scale", q.rows(), RowScale{q.f32(), factors, q.shape.c, row_target});
  });
}

void sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k, double* empty) {
  launch::on_space(queue, {0}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_any_empty", 1, AnyEmpty{sums, k, empty});
  });
}

void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k, double* trouble) {
  launch::on_space(queue, {0}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_factors", 1, Factors{sums, k, trouble});
  });
}

void sinkhorn_harden(Queue& queue, const Tensor& q) {
  launch::on_floats(queue, {q}, {2 * q.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/sinkhorn_harden", q.rows(), RowHarden{q.f32(), q.shape.c});
  });
}

void swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                        double weight, const Tensor& d_scores, double* loss) {
  const double inv_temperature = 1.0 / wide(temperature), codes_f = codes, slope = weight * inv_temperature;
  sum_over_rows(
      queue, "kernels/swav_cross_entropy", {scores, code_sum, d_scores},
      RowCrossEntropy{scores.f32(), code_sum.f32(), d_scores.f32(), scores.shape.c, inv_temperature, codes_f, slope},
      loss, weight);
}

void add_predictions(Queue& queue, const Tensor& scores, float temperature, double* prediction) {
  launch::on_floats(queue, {scores}, {scores.bytes(), 3}, [&]<class Space>() {
    Scratch scratch(queue);
    const float* s = scores.f32();
    const std::int64_t k_count = scores.shape.c, count = scores.rows();
    const double inv_temperature = 1.0 / wide(temperature);
    float *largest = scratch.get<float>(count), *reciprocal = scratch.get<float>(count);
    launch::rows<Space>(queue, "kernels/softmax_sums", count,
                        RowSoftmaxSums{s, k_count, inv_temperature, largest, reciprocal});
    launch::Layout layout;  // one segment per row, because the formula needs the row
    layout.segments = count;
    layout.elems = layout.c = k_count;
    launch::reduce<Space, 1>(queue, "kernels/add_predictions", scratch, layout, false,
                             PredictionTerm{s, largest, reciprocal, inv_temperature}, AddedSum{prediction});
  });
}

void row_entropies(Queue& queue, const Tensor& q, double* sum) {
  sum_over_rows(queue, "kernels/row_entropies", {q}, RowEntropy{q.f32(), q.shape.c}, sum);
}

}  // namespace seer::kernels
