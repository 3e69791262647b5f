// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/ntxent.hpp"

#include <cmath>
#include <limits>

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

struct RowContrast {
  float* products;
  std::int64_t columns, images, crops, first;
  double inv_temperature;
  float *log_all, *log_positive;
  double *loss, *hits;  // per row
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    float* a = products + row * columns;
    const std::int64_t self = first + row, same = first + row % images;
    team.write(1, Constant{kNever}, a + self);  // a row is not compared with itself
    const float most = team.max(columns, Value<>{a});
    const double sum = team.sum(columns, Exponential{a, most, inv_temperature});
    if (!team.leads()) return;
    double positive = 0;
    float best = kNever;
    for (std::int64_t crop = 0; crop < crops; ++crop) {
      const std::int64_t at = same + crop * images;
      if (at == self) continue;
      positive += std::exp(wide(a[at] - most) * inv_temperature);
      best = a[at] > best ? a[at] : best;
    }
    const double top = wide(most) * inv_temperature;
    log_all[row] = static_cast<float>(top + std::log(sum));
    log_positive[row] = static_cast<float>(top + std::log(positive));
    loss[row] = std::log(sum) - std::log(positive);
    hits[row] = best >= most ? 1 : 0;
  }
};

struct Attraction {
  const float *a, *log_all, *log_positive;  // per column
  std::int64_t self, images, same, end;     // the row's own column; first and end of its image's columns
  float own_all, own_positive;              // values of the row
  double inv_temperature;
  float weight;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, log_all, log_positive); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k, std::int64_t place) const {
    const float s = static_cast<float>(wide(a[k]) * inv_temperature);
    float pull = exponential(s - own_all) + exponential(s - log_all[k]);
    const bool positive = place >= same && place < end && (place - same) % images == 0;
    pull -= positive ? exponential(s - own_positive) + exponential(s - log_positive[k]) : 0.0F;
    return place == self ? 0.0F : weight * pull;
  }
};

struct RowAttraction {
  float* products;
  const float *log_all, *log_positive;
  std::int64_t columns, images, crops, first;
  double inv_temperature;
  float weight;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = products + row * columns;
    const std::int64_t self = first + row, same = first + row % images;
    team.write(columns,
               Attraction{a, log_all, log_positive, self, images, same, first + crops * images, log_all[self],
                          log_positive[self], inv_temperature, weight},
               a);
  }
};

}  // namespace

void ntxent_sums(Queue& queue, const Tensor& products, const Contrast& contrast, float* log_all, float* log_positive,
                 double* sums) {
  launch::on_floats(queue, {products}, {products.bytes(), 2}, [&]<class Space>() {
    launch::Scratch scratch(queue);
    const auto rows = products.rows();
    double* of_rows = scratch.get<double>(2 * rows);
    launch::rows<Space>(queue, "kernels/ntxent_sums", rows,
                        RowContrast{products.f32(), products.shape.c, contrast.images, contrast.crops, contrast.first,
                                    1 / wide(contrast.temperature), log_all, log_positive, of_rows, of_rows + rows});
    launch::rows<Space>(queue, "kernels/total", 2, Total{of_rows, sums, rows});
  });
}

void ntxent_gradient(Queue& queue, const Tensor& products, const Contrast& contrast, const float* log_all,
                     const float* log_positive, double weight) {
  launch::on_floats(queue, {products}, {2 * products.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/ntxent_gradient", products.rows(),
                        RowAttraction{products.f32(), log_all, log_positive, products.shape.c, contrast.images,
                                      contrast.crops, contrast.first, 1 / wide(contrast.temperature),
                                      static_cast<float>(weight / wide(contrast.temperature))});
  });
}

}  // namespace seer::kernels
