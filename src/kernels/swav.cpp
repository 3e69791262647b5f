// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/swav.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "exponential.hpp"
#include "row_team.hpp"

namespace seer::kernels {
namespace {

using launch::Scratch;
using launch::Terms;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

KOKKOS_FORCEINLINE_FUNCTION double wide(float v) {
  return static_cast<double>(v);
}

struct ColumnTerm {
  const float* q;
  std::array<const float*, 1> inputs() const { return {q}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return {q[i], 0, 0, 0};
  }
};

/// softmax(scores / t) from each row's largest entry and its reciprocal sum.
struct PredictionTerm {
  const float* scores;
  const float *largest, *reciprocal;
  double inv_temperature;
  std::array<const float*, 1> inputs() const { return {scores}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t row, std::int64_t i, std::int64_t) const {
    return {exponential(scores[i] - largest[row], inv_temperature) * reciprocal[row], 0, 0, 0};
  }
};

/// sums[row] = value(team, row's first element, row), added up in order.
template <class Body>
double sum_over_rows(Queue& queue, const char* label, std::int64_t count, const Body& body) {
  return launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    double* sums = scratch.get<double>(count);
    launch::rows<Space>(
        queue, label, count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) { sums[row] = body(team, row); });
    return launch::ordered_sum(sums, count);
  });
}

/// max over rows of value(team, row).
template <class Body>
float max_over_rows(Queue& queue, const char* label, std::int64_t count, const Body& body) {
  return launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    float* values = scratch.get<float>(count);
    launch::rows<Space>(
        queue, label, count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) { values[row] = body(team, row); });
    float most = -kInfinity;
    for (std::int64_t row = 0; row < count; ++row) most = std::max(most, values[row]);
    return most;
  });
}

}  // namespace

float maximum(Queue& queue, const Tensor& scores) {
  if (queue.only_plans(scores.bytes())) return 0;
  launch::need_f32(scores);
  const float* s = scores.f32();
  const std::int64_t k_count = scores.shape.c;
  return max_over_rows(
      queue, "kernels/maximum", scores.rows(), KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
        const float* a = s + row * k_count;
        return team.max(k_count, [=](std::int64_t k) { return a[k]; });
      });
}

double sinkhorn_exponentials(Queue& queue, const Tensor& scores, float maximum, float epsilon, const Tensor& q) {
  if (queue.only_plans(scores.bytes() + q.bytes())) return 1;
  launch::need_f32(scores);
  const float* s = scores.f32();
  float* out = q.f32();
  const std::int64_t k_count = scores.shape.c, count = scores.rows();
  const double factor = 1.0 / wide(epsilon);
  const float reach = 60 * epsilon;
  const double sum = sum_over_rows(
      queue, "kernels/sinkhorn_exponentials", count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
        const float* a = s + row * k_count;
        float* b = out + row * k_count;
        // A row that lies so far below the rest that all of it would vanish in float is lifted until its best is
        // exp(-60): its share of the prototypes' first sums stays nothing, and from then on rows are scaled anyway.
        const float best = team.max(k_count, [=](std::int64_t k) { return a[k]; });
        const float top = best + reach < maximum ? best + reach : maximum;
        return team.sum(k_count, [=](std::int64_t k) {
          const float e = exponential(a[k] - top, factor);
          b[k] = e;
          return e;
        });
      });
  if (sum < std::numeric_limits<double>::infinity()) return sum;  // also false for NaN, which must stay visible
  const float largest = max_over_rows(
      queue, "kernels/sinkhorn_largest", count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
        const float* b = out + row * k_count;
        return team.max(k_count, [=](std::int64_t k) { return b[k] < kInfinity ? b[k] : -kInfinity; });
      });
  if (largest < 0) return sum;  // nothing finite to take instead
  return sum_over_rows(
      queue, "kernels/sinkhorn_repair", count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
        float* b = out + row * k_count;
        return team.sum(k_count, [=](std::int64_t k) {
          b[k] = b[k] == kInfinity ? largest : b[k];
          return b[k];
        });
      });
}

void sinkhorn_prototype_sums(Queue& queue, const Tensor& q, double* sums) {
  if (queue.only_plans(q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    Scratch scratch(queue);
    launch::reduce<Space, 1>(
        queue, "kernels/sinkhorn_prototype_sums", scratch, launch::layout_of(q), false, ColumnTerm{q.f32()},
        KOKKOS_LAMBDA(std::int64_t, std::int64_t k, const double(&sum)[1]) { sums[k] = sum[0]; });
  });
}

void sinkhorn_add(Queue& queue, const Tensor& q, float value) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    const float* data = q.f32();
    launch::map<Space>(
        queue, "kernels/sinkhorn_add", launch::flat(q.elems()), q.f32(),
        KOKKOS_LAMBDA(std::int64_t, std::int64_t i, std::int64_t) { return data[i] + value; });
  });
}

void sinkhorn_scale(Queue& queue, const Tensor& q, const double* factors, double row_target) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    float* data = q.f32();
    const std::int64_t k_count = q.shape.c;
    launch::rows<Space>(
        queue, "kernels/sinkhorn_scale", q.rows(), KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
          float* a = data + row * k_count;
          const double sum = team.sum(k_count, [=](std::int64_t k) { return wide(a[k]) * factors[k]; });
          const double target = row_target / sum;
          team.each(k_count, [=](std::int64_t k) { a[k] = static_cast<float>(wide(a[k]) * factors[k] * target); });
        });
  });
}

bool sinkhorn_any_empty(Queue& queue, const double* sums, std::int64_t k) {
  if (queue.only_plans(0)) return false;
  return std::find(sums, sums + k, 0.0) != sums + k;
}

void sinkhorn_factors(Queue& queue, double* sums, std::int64_t k) {
  if (queue.only_plans(0)) return;
  double largest = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    sums[i] = 1.0 / (static_cast<double>(k) * sums[i]);
    if (std::isfinite(sums[i])) largest = std::max(largest, sums[i]);
  }
  for (std::int64_t i = 0; i < k; ++i) {
    if (std::isinf(sums[i])) sums[i] = largest;
  }
}

void sinkhorn_harden(Queue& queue, const Tensor& q) {
  if (queue.only_plans(2 * q.bytes())) return;
  launch::need_f32(q);
  launch::on_space(queue, [&]<class Space>() {
    float* data = q.f32();
    const std::int64_t k_count = q.shape.c;
    launch::rows<Space>(
        queue, "kernels/sinkhorn_harden", q.rows(), KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
          float* a = data + row * k_count;
          const float most = team.max(k_count, [=](std::int64_t k) { return a[k]; });
          const std::int64_t best = team.first(k_count, [=](std::int64_t k) { return a[k] == most; });
          team.each(k_count, [=](std::int64_t k) { a[k] = k == best ? 1.0F : 0.0F; });
        });
  });
}

double swav_cross_entropy(Queue& queue, const Tensor& scores, const Tensor& code_sum, int codes, float temperature,
                          double weight, const Tensor& d_scores) {
  if (queue.only_plans(scores.bytes() + code_sum.bytes() + d_scores.bytes())) return 0;
  launch::need_f32(scores);
  launch::need_f32(code_sum);
  const float *s = scores.f32(), *code = code_sum.f32();
  float* gradient = d_scores.f32();  // null where no gradient is wanted
  const std::int64_t k_count = scores.shape.c;
  const double inv_temperature = 1.0 / wide(temperature), codes_f = codes, slope = weight * inv_temperature;
  return weight *
         sum_over_rows(
             queue, "kernels/swav_cross_entropy", scores.rows(), KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
               const float *a = s + row * k_count, *q = code + row * k_count;
               float* d = gradient + (gradient != nullptr ? row * k_count : 0);
               const float largest = team.max(k_count, [=](std::int64_t k) { return a[k]; });
               double sum = 0;
               if (gradient != nullptr) {
                 sum = team.sum(k_count, [=](std::int64_t k) {
                   const float e = exponential(a[k] - largest, inv_temperature);
                   d[k] = e;
                   return e;
                 });
                 const float softmax = static_cast<float>(slope * codes_f / sum), target = static_cast<float>(slope);
                 team.each(k_count, [=](std::int64_t k) { d[k] = softmax * d[k] - target * q[k]; });
               } else {
                 sum = team.sum(k_count, [=](std::int64_t k) { return exponential(a[k] - largest, inv_temperature); });
               }
               const double cross = team.sum(k_count, [=](std::int64_t k) { return wide(q[k]) * wide(a[k]); });
               return codes_f * (wide(largest) * inv_temperature + std::log(sum)) - cross * inv_temperature;
             });
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
    launch::rows<Space>(
        queue, "kernels/softmax_sums", count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
          const float* a = s + row * k_count;
          const float most = team.max(k_count, [=](std::int64_t k) { return a[k]; });
          largest[row] = most;
          reciprocal[row] = static_cast<float>(
              1.0 / team.sum(k_count, [=](std::int64_t k) { return exponential(a[k] - most, inv_temperature); }));
        });
    launch::Layout layout;  // one segment a row: the formula needs the row
    layout.segments = count;
    layout.elems = layout.c = k_count;
    launch::reduce<Space, 1>(
        queue, "kernels/add_predictions", scratch, layout, false,
        PredictionTerm{s, largest, reciprocal, inv_temperature},
        KOKKOS_LAMBDA(std::int64_t, std::int64_t k, const double(&sum)[1]) { mean_prediction[k] += sum[0]; });
  });
}

double mean_row_entropy(Queue& queue, const Tensor& q) {
  if (queue.only_plans(q.bytes())) return 0;
  launch::need_f32(q);
  const float* data = q.f32();
  const std::int64_t k_count = q.shape.c, count = q.rows();
  const double sum = sum_over_rows(
      queue, "kernels/row_entropy", count, KOKKOS_LAMBDA(const auto& team, std::int64_t row) {
        const float* a = data + row * k_count;
        return team.sum(k_count, [=](std::int64_t k) {
          return a[k] >= std::numeric_limits<float>::min() ? -a[k] * logarithm(a[k]) : 0.0F;
        });
      });
  return count > 0 ? sum / static_cast<double>(count) : 0.0;
}

}  // namespace seer::kernels
