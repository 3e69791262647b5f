// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/classify.hpp"

#include <cmath>

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

/// weight * (softmax - target)
struct SoftmaxGradient {
  const float* a;
  float top, scale, spread, own_part, partner_part, weight;  // scale: 1 / sum of exp(a - top); spread: of smoothing
  std::int64_t own, partner;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k, std::int64_t place) const {
    const float target = spread + (place == own ? own_part : 0.0F) + (place == partner ? partner_part : 0.0F);
    return weight * (exponential(a[k] - top) * scale - target);
  }
};

struct RowCrossEntropy {
  const float* scores;
  float* gradient;
  std::int64_t classes;
  ClassTargets targets;
  float weight;
  double *loss, *hits;  // per row
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float* a = scores + row * classes;
    const std::int64_t image = row % targets.images, own = targets.own[image], partner = targets.partner[image];
    const float top = team.max(classes, Value<>{a});
    const double sum = team.sum(classes, Exponential{a, top, 1});
    const double all = targets.smoothing > 0 ? team.sum(classes, Value<>{a}) : 0;
    const float kept = 1 - targets.smoothing, spread = targets.smoothing / static_cast<float>(classes);
    team.write(classes,
               SoftmaxGradient{a, top, static_cast<float>(1 / sum), spread, kept * targets.share,
                               kept * (1 - targets.share), weight, own, partner},
               gradient + row * classes);
    if (!team.leads()) return;
    const double mixed = wide(targets.share) * wide(a[own]) + (1 - wide(targets.share)) * wide(a[partner]);
    loss[row] = wide(top) + std::log(sum) - wide(kept) * mixed - wide(spread) * all;
    hits[row] = a[own] >= top ? 1 : 0;
  }
};

/// max(s, 0) - s t + ln(1 + exp(-|s|)), which does not overflow.
struct EntryLoss {
  const float *a, *target;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, target); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const {
    const float s = a[k], size = s < 0 ? -s : s;
    const double loss = wide((s > 0 ? s : 0.0F) - s * target[k]) + std::log1p(wide(exponential(-size)));
    return target[k] < 0 ? 0.0 : loss;
  }
};

struct EntryGradient {
  const float *a, *target;
  float weight;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, target); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const {
    const float s = a[k], small = exponential(s < 0 ? s : -s), sigmoid = (s < 0 ? small : 1.0F) / (1 + small);
    return target[k] < 0 ? 0.0F : weight * (sigmoid - target[k]);
  }
};

struct TopAndPresent {
  const float *a, *target;
  float top;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, target); }
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t k) const { return a[k] >= top && target[k] > 0.5F; }
};

struct RowBinary {
  const float *scores, *targets;
  float* gradient;
  std::int64_t classes, images;
  float weight;
  double *loss, *hits;  // per row
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float *a = scores + row * classes, *target = targets + row % images * classes;
    const double sum = team.sum(classes, EntryLoss{a, target});
    const float top = team.max(classes, Value<>{a});
    const std::int64_t hit = team.first(classes, TopAndPresent{a, target, top});
    team.write(classes, EntryGradient{a, target, weight}, gradient + row * classes);
    if (!team.leads()) return;
    loss[row] = sum;
    hits[row] = hit >= 0 ? 1 : 0;
  }
};

/// Runs make(losses, hits) on every row and sums both.
template <class Space>
void rows_and_sums(Queue& queue, const char* label, std::int64_t rows, double* sums, const auto& make) {
  launch::Scratch scratch(queue);
  double* of_rows = scratch.get<double>(2 * rows);
  launch::rows<Space>(queue, label, rows, make(of_rows, of_rows + rows));
  launch::rows<Space>(queue, "kernels/total", 2, Total{of_rows, sums, rows});
}

}  // namespace

void cross_entropy(Queue& queue, const Tensor& scores, const ClassTargets& targets, double weight,
                   const Tensor& d_scores, double* sums) {
  launch::on_floats(queue, {scores, d_scores}, {3 * scores.bytes(), 2}, [&]<class Space>() {
    rows_and_sums<Space>(queue, "kernels/cross_entropy", scores.rows(), sums, [&](double* loss, double* hits) {
      return RowCrossEntropy{scores.f32(), d_scores.f32(), scores.shape.c, targets, static_cast<float>(weight), loss,
                             hits};
    });
  });
}

void binary_cross_entropy(Queue& queue, const Tensor& scores, const float* targets, std::int64_t images, double weight,
                          const Tensor& d_scores, double* sums) {
  launch::on_floats(queue, {scores, d_scores}, {4 * scores.bytes(), 2}, [&]<class Space>() {
    rows_and_sums<Space>(queue, "kernels/binary_cross_entropy", scores.rows(), sums, [&](double* loss, double* hits) {
      return RowBinary{scores.f32(), targets, d_scores.f32(), scores.shape.c, images, static_cast<float>(weight),
                       loss,         hits};
    });
  });
}

}  // namespace seer::kernels
