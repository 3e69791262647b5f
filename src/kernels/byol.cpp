// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/byol.hpp"

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

/// before - weight * target: adds one target's part to the gradient.
struct Pulled {
  const float *before, *target;
  float weight;
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit& visit) {
    visit.elements(before);
    visit.elements(target);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return before[k] - weight * target[k]; }
};

struct Nothing {
  template <class Visit>
  KOKKOS_FORCEINLINE_FUNCTION void fields(Visit&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t) const { return 0.0F; }
};

struct RowLoss {
  const float *predictions, *targets;
  float* gradient;
  std::int64_t dim, rows, images;
  float weight;
  template <class Team>
  KOKKOS_INLINE_FUNCTION double operator()(const Team& team, std::int64_t row) const {
    float* d = gradient + row * dim;
    team.write(dim, Nothing{}, d);
    double sum = 0;
    for (std::int64_t at = row % images; at < rows; at += images) {
      if (at == row) continue;
      const float* target = targets + at * dim;
      sum += 2 - 2 * team.sum(dim, Product{predictions + row * dim, target});
      team.write(dim, Pulled{d, target, 2 * weight}, d);
    }
    return sum;
  }
};

struct Total {
  const double* values;
  std::int64_t count;
  double* out;
  template <class Team>
  KOKKOS_INLINE_FUNCTION void operator()(const Team& team, std::int64_t) const {
    const double sum = team.sum_in_order(count, Value<double>{values});
    if (team.leads()) *out = sum;
  }
};

}  // namespace

void byol_loss(Queue& queue, const Tensor& predictions, const Tensor& targets, std::int64_t images, double weight,
               const Tensor& d_predictions, double* sum) {
  if (queue.only_plans(3 * predictions.bytes(), DType::f32, 2)) return;
  launch::need_f32(predictions);
  launch::need_f32(targets);
  launch::on_space(queue, [&]<class Space>() {
    launch::Scratch scratch(queue);
    const auto rows = predictions.rows();
    double* of_rows = scratch.get<double>(rows);
    const RowLoss loss{predictions.f32(),         targets.f32(), d_predictions.f32(), predictions.shape.c, rows, images,
                       static_cast<float>(weight)};
    launch::rows<Space>(queue, "kernels/byol_loss", rows, Kept<RowLoss, double>{loss, of_rows});
    launch::rows<Space>(queue, "kernels/byol_total", 1, Total{of_rows, rows, sum});
  });
}

}  // namespace seer::kernels
