// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/swav.hpp"

#include <array>
#include <cmath>
#include <limits>

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

using launch::Scratch;
using launch::Terms;

// Formulas; most handle one row of scores or codes (row_team.hpp).

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The largest function(x) of a row.
template <class Function>
struct RowLargest {
  const float* s;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION float operator()(const auto& team, std::int64_t row) const {
    return team.max(k_count, Each{s + row * k_count, Function{}});
  }
};

struct RowExponentials {
  const float* s;
  float* out;
  std::int64_t k_count;
  double factor;
  float reach;
  const float* maximum;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    // A row so far below the maximum that all its entries would underflow in float is shifted up until its largest
    // entry is exp(-60). Its share of the first prototype sums stays negligible, and later steps scale rows anyway.
    const float best = team.max(k_count, Value<>{a});
    const float most = *maximum, top = best + reach < most ? best + reach : most;
    return team.sum(k_count, Exponential{a, top, factor}, out + row * k_count);
  }
};

struct Finite {
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return v < kInfinity ? v : -kInfinity; }
};

struct Repaired {
  float instead;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return v == kInfinity ? instead : v; }
};

/// Replaces infinite entries by the largest finite one, if there is one. Returns the row's sum.
struct RowRepair {
  float* q;
  std::int64_t k_count;
  const float* largest;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    float* b = q + row * k_count;
    return team.sum(k_count, Each{b, Repaired{*largest < 0 ? kInfinity : *largest}}, b);
  }
};

/// a * f in double.
struct Share {
  const float* a;
  const double* f;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, f); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const { return wide(a[k]) * f[k]; }
};
struct ShareOfTarget {
  Share share;
  double target;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { share.fields(visit); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return static_cast<float>(share(k) * target); }
};

struct RowScale {
  float* data;
  const double* factors;
  std::int64_t k_count;
  double row_target;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const Share share{a, factors};
    const double sum = team.sum(k_count, share);
    team.write(k_count, ShareOfTarget{share, row_target / sum}, a);
  }
};

constexpr double kWideInfinity = std::numeric_limits<double>::infinity();

struct Reciprocal {
  double k_total;
  KOKKOS_FORCEINLINE_FUNCTION double operator()(double f) const { return 1.0 / (k_total * f); }
};
struct FiniteFactor {
  KOKKOS_FORCEINLINE_FUNCTION double operator()(double f) const { return f < kWideInfinity ? f : 0.0; }
};
struct RepairedFactor {
  double largest;
  KOKKOS_FORCEINLINE_FUNCTION double operator()(double f) const {
    return f == kWideInfinity || f == -kWideInfinity ? largest : f;
  }
};

/// Divides by the sum of all entries. Reports an infinite or NaN sum as trouble.
struct RowDivide {
  float* data;
  const double* total;
  double* trouble;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const double sum = *total;
    float* a = data + row * k_count;
    team.write(k_count, Each{a, Scaled{static_cast<float>(1 / sum)}}, a);
    if (row == 0 && team.leads() && !(sum < kWideInfinity)) *trouble = 1;
  }
};

struct IsZero {
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(double v) const { return v == 0.0; }
};

/// One row holds all factors, because each may need the largest finite one.
struct Factors {
  double* sums;
  std::int64_t count;
  double* trouble;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    if (team.first(count, Each{sums, IsZero{}}) >= 0 && team.leads()) *trouble = 1;
    team.write(count, Each{sums, Reciprocal{static_cast<double>(count)}}, sums);
    const double most = team.max(count, Each{sums, FiniteFactor{}});
    team.write(count, Each{sums, RepairedFactor{most > 0.0 ? most : 0.0}}, sums);
  }
};

struct AnyEmpty {
  const double* sums;
  std::int64_t count;
  double* empty;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    const std::int64_t place = team.first(count, Each{sums, IsZero{}});
    if (team.leads()) *empty = place >= 0 ? 1 : 0;
  }
};

struct Equal {
  float value;
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(float v) const { return v == value; }
};
struct OneAt {
  std::int64_t best;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t place) const {
    return place == best ? 1.0F : 0.0F;
  }
};

struct RowHarden {
  float* data;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = data + row * k_count;
    const float most = team.max(k_count, Value<>{a});
    const std::int64_t best = team.first(k_count, Each{a, Equal{most}});
    team.write(k_count, OneAt{best}, a);
  }
};

struct ScoreGradient {
  const float *d, *q;
  float softmax, target;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(d, q); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return softmax * d[k] - target * q[k]; }
};

struct RowCrossEntropy {
  const float *s, *code;
  float* gradient;
  std::int64_t k_count;
  double inv_temperature, codes, slope;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    const float *a = s + row * k_count, *q = code + row * k_count;
    float* d = gradient + row * k_count;
    const float largest = team.max(k_count, Value<>{a});
    const double sum = team.sum(k_count, Exponential{a, largest, inv_temperature}, d);
    const float softmax = static_cast<float>(slope * codes / sum), target = static_cast<float>(slope);
    team.write(k_count, ScoreGradient{d, q, softmax, target}, d);
    const double cross = team.sum(k_count, Product{q, a});
    return codes * (wide(largest) * inv_temperature + std::log(sum)) - cross * inv_temperature;
  }
};

struct RowSoftmaxSums {
  const float* s;
  std::int64_t k_count;
  double inv_temperature;
  float *largest, *reciprocal;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float* a = s + row * k_count;
    const float most = team.max(k_count, Value<>{a});
    const double sum = team.sum(k_count, Exponential{a, most, inv_temperature});
    if (team.leads()) {
      largest[row] = most;
      reciprocal[row] = static_cast<float>(1.0 / sum);
    }
  }
};

struct EntropyTerm {
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const {
    return v >= std::numeric_limits<float>::min() ? -v * logarithm(v) : 0.0F;
  }
};

struct RowEntropy {
  const float* data;
  std::int64_t k_count;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    return team.sum(k_count, Each{data + row * k_count, EntropyTerm{}});
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

struct Raised {
  float value;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return v + value; }
};

/// *out = the largest of body(team, row) over rows.
template <class Space, class Body>
void max_over_rows(Queue& queue, Scratch& scratch, const char* label, std::int64_t count, const Body& body,
                   float* out) {
  float* kept = scratch.get<float>(count);
  launch::rows<Space>(queue, label, count, Kept<Body, float>{body, kept});
  launch::rows<Space>(queue, "kernels/largest", 1, Kept<RowLargest<std::identity>, float>{{kept, count}, out});
}

}  // namespace

void maximum(Queue& queue, const Tensor& scores, float* largest) {
  launch::on_floats(queue, {scores}, {scores.bytes(), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    max_over_rows<Space>(queue, scratch, "kernels/maximum", scores.rows(),
                         RowLargest<std::identity>{scores.f32(), scores.shape.c}, largest);
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
    max_over_rows<Space>(queue, scratch, "kernels/sinkhorn_largest", count, RowLargest<Finite>{q.f32(), k_count},
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
                             launch::SumTerm<float>{q.f32()}, PrototypeSum{sums});
  });
}

void sinkhorn_add(Queue& queue, const Tensor& q, float value) {
  in_place(queue, "kernels/sinkhorn_add", q, Raised{value});
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
                             PredictionTerm{s, largest, reciprocal, inv_temperature},
                             launch::Added<double>{prediction});
  });
}

void row_entropies(Queue& queue, const Tensor& q, double* sum) {
  sum_over_rows(queue, "kernels/row_entropies", {q}, RowEntropy{q.f32(), q.shape.c}, sum);
}

}  // namespace seer::kernels
