// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/byol.hpp"

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

/// before - weight * target: adds one target's part to the gradient.
struct Pulled {
  const float *before, *target;
  float weight;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(before, target); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const { return before[k] - weight * target[k]; }
};

struct RowLoss {
  const float *predictions, *targets;
  float* gradient;
  std::int64_t dim, rows, images;
  float weight;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t row) const {
    float* d = gradient + row * dim;
    team.write(dim, Constant{0}, d);
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

}  // namespace

void byol_loss(Queue& queue, const Tensor& predictions, const Tensor& targets, std::int64_t images, double weight,
               const Tensor& d_predictions, double* sum) {
  sum_over_rows(queue, "kernels/byol_loss", {predictions, targets, d_predictions},
                RowLoss{predictions.f32(), targets.f32(), d_predictions.f32(), predictions.shape.c, predictions.rows(),
                        images, static_cast<float>(weight)},
                sum);
}

}  // namespace seer::kernels
