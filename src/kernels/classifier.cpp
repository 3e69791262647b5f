// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/classifier.hpp"

#include <algorithm>
#include <cmath>

#include "launch.hpp"

namespace seer::kernels {
namespace {

constexpr std::int64_t kLanes = 8;           // sums side by side
constexpr std::int64_t kRows = 2;            // rows that share the loaded weights
constexpr std::int64_t kClasses = 4;         // classes that share the loaded rows
constexpr std::int64_t kBlockRows = 32;      // rows that stay in the cache while all weights pass
constexpr std::int64_t kBlockColumns = 128;  // columns of a unit of work of the gradient
constexpr std::int64_t kStripRows = 128;     // their rows that stay in the cache while all classes pass
constexpr std::int64_t kStep = 4;            // rows added to a sum together

/// Dot products of Rows rows with Classes weights.
template <std::int64_t Rows, std::int64_t Classes>
void dot_products(std::int64_t dimension, std::int64_t classes, const double* x, const double* weight,
                  const double* bias, double* scores) {
  double sums[Rows][Classes][kLanes] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= dimension; j += kLanes)
    for (std::int64_t r = 0; r < Rows; ++r)
      for (std::int64_t c = 0; c < Classes; ++c)
#pragma omp simd
        for (std::int64_t lane = 0; lane < kLanes; ++lane)
          sums[r][c][lane] += x[r * dimension + j + lane] * weight[c * dimension + j + lane];
  for (std::int64_t r = 0; r < Rows; ++r) {
    for (std::int64_t c = 0; c < Classes; ++c) {
      double total = bias[c];
      for (std::int64_t k = j; k < dimension; ++k) total += x[r * dimension + k] * weight[c * dimension + k];
      for (const double sum : sums[r][c]) total += sum;
      scores[r * classes + c] = total;
    }
  }
}

/// Adds the products of Rows rows with `columns` columns to the gradient of Classes classes.
template <std::int64_t Rows, std::int64_t Classes>
void add_products(const ClassifierShape& s, std::int64_t columns, const double* x, const double* d_scores,
                  double* d_weight) {
  double d[Rows][Classes];
  for (std::int64_t r = 0; r < Rows; ++r)
    for (std::int64_t c = 0; c < Classes; ++c) d[r][c] = d_scores[r * s.classes + c];
#pragma omp simd
  for (std::int64_t j = 0; j < columns; ++j) {
    for (std::int64_t c = 0; c < Classes; ++c) {
      double sum = d_weight[c * s.dimension + j];
      for (std::int64_t r = 0; r < Rows; ++r) sum += d[r][c] * x[r * s.dimension + j];
      d_weight[c * s.dimension + j] = sum;
    }
  }
}

template <std::int64_t Classes>
void add_strip(const ClassifierShape& s, std::int64_t rows, std::int64_t columns, const double* x,
               const double* d_scores, double* d_weight) {
  std::int64_t i = 0;
  for (; i + kStep <= rows; i += kStep)
    add_products<kStep, Classes>(s, columns, x + i * s.dimension, d_scores + i * s.classes, d_weight);
  for (; i < rows; ++i) add_products<1, Classes>(s, columns, x + i * s.dimension, d_scores + i * s.classes, d_weight);
}

void gradient_of_columns(const ClassifierShape& s, std::int64_t columns, const double* x, const double* d_scores,
                         double* d_weight) {
  for (std::int64_t c = 0; c < s.classes; ++c) std::fill_n(d_weight + c * s.dimension, columns, 0.0);
  for (std::int64_t first = 0; first < s.rows; first += kStripRows) {
    const auto rows = std::min(kStripRows, s.rows - first);
    const double *strip = x + first * s.dimension, *weights = d_scores + first * s.classes;
    std::int64_t c = 0;
    for (; c + kClasses <= s.classes; c += kClasses)
      add_strip<kClasses>(s, rows, columns, strip, weights + c, d_weight + c * s.dimension);
    for (; c < s.classes; ++c) add_strip<1>(s, rows, columns, strip, weights + c, d_weight + c * s.dimension);
  }
}

template <class Body>
void on_host(const char* label, std::int64_t count, const Body& body) {
  launch::loop<launch::Host>(launch::Queue(), label, count, body);
}

}  // namespace

void linear_scores(const ClassifierShape& shape, const double* x, const double* weight, const double* bias,
                   double* scores) {
  const auto blocks = (shape.rows + kBlockRows - 1) / kBlockRows;
  on_host("kernels/linear_scores", blocks, [=](std::int64_t block) {
    const auto end = std::min((block + 1) * kBlockRows, shape.rows);
    for (std::int64_t c = 0; c < shape.classes; c += kClasses) {  // a few weights stay in the cache for all rows
      const auto classes = std::min(kClasses, shape.classes - c);
      std::int64_t i = block * kBlockRows;
      const double *w = weight + c * shape.dimension, *b = bias + c;
      const auto row = [&](std::int64_t at) { return x + at * shape.dimension; };
      const auto out = [&](std::int64_t at) { return scores + at * shape.classes + c; };
      for (; i + kRows <= end && classes == kClasses; i += kRows)
        dot_products<kRows, kClasses>(shape.dimension, shape.classes, row(i), w, b, out(i));
      for (; i < end; ++i)
        for (std::int64_t k = 0; k < classes; ++k)
          dot_products<1, 1>(shape.dimension, shape.classes, row(i), w + k * shape.dimension, b + k, out(i) + k);
    }
  });
}

void linear_gradient(const ClassifierShape& shape, const double* x, const double* d_scores, double* d_weight,
                     double* d_bias) {
  const auto blocks = (shape.dimension + kBlockColumns - 1) / kBlockColumns;
  on_host("kernels/linear_gradient", blocks, [=](std::int64_t block) {
    const auto j = block * kBlockColumns;
    gradient_of_columns(shape, std::min(kBlockColumns, shape.dimension - j), x + j, d_scores, d_weight + j);
  });
  std::fill_n(d_bias, shape.classes, 0.0);
  for (std::int64_t i = 0; i < shape.rows; ++i)
    for (std::int64_t c = 0; c < shape.classes; ++c) d_bias[c] += d_scores[i * shape.classes + c];
}

void softmax_loss(const ClassifierShape& shape, const std::int32_t* labels, double* scores, double* losses) {
  on_host("kernels/softmax_loss", shape.rows, [=](std::int64_t i) {
    double* s = scores + i * shape.classes;
    const double most = *std::max_element(s, s + shape.classes), own = s[labels[i]];
    double sum = 0;
    for (std::int64_t c = 0; c < shape.classes; ++c) sum += s[c] = std::exp(s[c] - most);
    for (std::int64_t c = 0; c < shape.classes; ++c) s[c] /= sum;
    s[labels[i]] -= 1;
    losses[i] = std::log(sum) + most - own;
  });
}

void logistic_loss(const ClassifierShape& shape, const std::int8_t* truth, double* scores, double* losses) {
  on_host("kernels/logistic_loss", shape.rows, [=](std::int64_t i) {
    double loss = 0;
    for (std::int64_t at = i * shape.classes; at < (i + 1) * shape.classes; ++at) {
      const double sign = truth[at] == 1 ? 1 : -1, margin = sign * scores[at], small = std::exp(-std::abs(margin));
      const bool counts = truth[at] >= 0;
      if (counts) loss += std::log1p(small) + std::max(-margin, 0.0);
      scores[at] = counts ? -sign * (margin > 0 ? small : 1.0) / (1 + small) : 0.0;
    }
    losses[i] = loss;
  });
}

}  // namespace seer::kernels
