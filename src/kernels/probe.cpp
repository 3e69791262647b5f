// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/probe.hpp"

#include <cmath>

#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

using launch::Scratch;

constexpr double kEpsilon = 1e-5, kRunningMomentum = 0.1;  // PyTorch's BatchNorm
constexpr std::int64_t kBlock = 64;                        // columns that one item of work sums

constexpr std::int64_t blocks_of(std::int64_t columns) {
  return (columns + kBlock - 1) / kBlock;
}

/// Softmax over the number of rows.
struct Share {
  const float* a;
  float top;
  double inverse;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const {
    return static_cast<float>(wide(exponential(a[k] - top)) * inverse);
  }
};

struct CrossEntropy {
  const std::int32_t* labels;
  float* scores;
  std::int64_t heads, classes;
  double rows;
  double* losses;  ///< [heads, rows]
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t item) const {
    const std::int64_t row = item / heads, head = item % heads;
    float* const a = scores + item * classes;
    const float top = team.max(classes, Value<>{a});
    const double sum = team.sum(classes, Exponential{a, top, 1.0});
    const std::int32_t label = labels[row];
    const double own = wide(a[label] - top);
    team.write(classes, Share{a, top, 1 / (sum * rows)}, a);
    if (!team.leads()) return;
    a[label] -= static_cast<float>(1 / rows);
    losses[head * static_cast<std::int64_t>(rows) + row] = (std::log(sum) - own) / rows;
  }
};

struct CountValid {
  const std::int8_t* truth;
  std::int64_t rows, classes;
  double* weights;  ///< 1 / rows that are not left out; 0: all are
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t c) const {
    std::int64_t valid = 0;
    for (std::int64_t i = 0; i < rows; ++i) valid += truth[i * classes + c] >= 0 ? 1 : 0;
    weights[c] = valid > 0 ? 1.0 / static_cast<double>(valid) : 0.0;
  }
};

struct BinaryCrossEntropy {
  const std::int8_t* truth;
  const double* weights;
  float* scores;
  std::int64_t heads, classes, rows;
  double* losses;  ///< [heads, rows]
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t row = item / heads, head = item % heads;
    float* const a = scores + item * classes;
    const std::int8_t* const t = truth + row * classes;
    double loss = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double weight = t[c] < 0 ? 0.0 : weights[c];
      const double score = wide(a[c]), present = t[c] == 1 ? 1.0 : 0.0;
      // ln(1 + exp(-|s|)) + max(s, 0) - s t, which does not overflow.
      const double small = std::exp(-std::abs(score));
      const double sigmoid = score >= 0 ? 1 / (1 + small) : small / (1 + small);
      loss += weight * (std::log1p(small) + (score > 0 ? score : 0.0) - score * present);
      a[c] = static_cast<float>(weight * (sigmoid - present));
    }
    losses[head * rows + row] = loss;
  }
};

struct Normalise {
  std::int64_t rows, width;
  const float* x;
  double* running;
  float* out;
  bool learns;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t block) const {
    const std::int64_t begin = block * kBlock, count = begin + kBlock < width ? kBlock : width - begin;
    double mean[kBlock] = {}, square[kBlock] = {};
    const auto n = static_cast<double>(rows);
    for (std::int64_t i = 0; learns && i < rows; ++i)
      for (std::int64_t j = 0; j < count; ++j) mean[j] += wide(x[i * width + begin + j]) / n;
    for (std::int64_t i = 0; learns && i < rows; ++i) {
      for (std::int64_t j = 0; j < count; ++j) {
        const double from_mean = wide(x[i * width + begin + j]) - mean[j];
        square[j] += from_mean * from_mean;
      }
    }
    for (std::int64_t j = 0; j < count; ++j) {
      double &old_mean = running[begin + j], &old_variance = running[width + begin + j];
      if (learns) {
        old_mean += kRunningMomentum * (mean[j] - old_mean);
        if (rows > 1) old_variance += kRunningMomentum * (square[j] / (n - 1) - old_variance);
      } else {
        mean[j] = old_mean;
      }
      square[j] = 1 / std::sqrt((learns ? square[j] / n : old_variance) + kEpsilon);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < count; ++j) {
        const std::int64_t at = i * width + begin + j;
        out[at] = static_cast<float>((wide(x[at]) - mean[j]) * square[j]);
      }
    }
  }
};

/// One step of an element. SGD: m = mu m + (g + decay p), p -= rate (own g + kept m), where Nesterov has own 1 and kept
/// mu, else 0 and 1. AdamW: decoupled decay.
template <bool kAdam>
struct Step {
  float rate, decay, momentum, second, own, kept, first_correction, second_correction;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float p, float g, float& m, float& v) const {
    if constexpr (kAdam) {
      m = momentum * m + (1 - momentum) * g;
      v = second * v + (1 - second) * g * g;
      return p - rate * decay * p - rate * (m * first_correction) / (std::sqrt(v * second_correction) + 1e-8F);
    } else {
      const float with_decay = g + decay * p;
      m = momentum * m + with_decay;
      return p - rate * (own * with_decay + kept * m);
    }
  }
};

template <bool kAdam>
Step<kAdam> step_of(const ProbeRule& rule) {
  const double t = static_cast<double>(rule.update) + 1;
  return {0,
          0,
          rule.momentum,
          rule.second,
          rule.nesterov ? 1.0F : 0.0F,
          rule.nesterov ? rule.momentum : 1.0F,
          static_cast<float>(1 / (1 - std::pow(wide(rule.momentum), t))),
          static_cast<float>(1 / (1 - std::pow(wide(rule.second), t)))};
}

struct BiasGradient {
  const float* d_scores;
  std::int64_t rows, columns;
  float* d_bias;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t block) const {
    const std::int64_t begin = block * kBlock, count = begin + kBlock < columns ? kBlock : columns - begin;
    double sum[kBlock] = {};
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < count; ++j) sum[j] += wide(d_scores[i * columns + begin + j]);
    for (std::int64_t j = 0; j < count; ++j) d_bias[begin + j] = static_cast<float>(sum[j]);
  }
};

/// The next scale and shift of some columns of a head, from the weights before their update.
template <bool kAdam>
struct NormStep {
  std::int64_t classes, width;
  Step<kAdam> step;
  const float *rates, *d_bias, *d_weight, *weight;
  ProbeState norm;
  float* next;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t head = item / blocks_of(width), begin = item % blocks_of(width) * kBlock;
    const std::int64_t count = begin + kBlock < width ? kBlock : width - begin;
    double scale[kBlock] = {}, shift[kBlock] = {};
    for (std::int64_t c = head * classes; c < (head + 1) * classes; ++c) {
      const float *w = weight + c * width + begin, *d = d_weight + c * width + begin;
      const double bias = wide(d_bias[c]);
      for (std::int64_t j = 0; j < count; ++j) {
        scale[j] += wide(w[j]) * wide(d[j]);
        shift[j] += wide(w[j]) * bias;
      }
    }
    Step<kAdam> own = step;
    own.rate = rates[head];
    for (int part = 0; part < 2; ++part) {
      for (std::int64_t j = 0; j < count; ++j) {
        const std::int64_t at = (2 * head + part) * width + begin + j;
        float unused = 0;
        next[at] = own(norm.value[at], static_cast<float>(part == 0 ? scale[j] : shift[j]), norm.momentum[at],
                       kAdam ? norm.second[at] : unused);
      }
    }
  }
};

/// The step of one class of one head: its row of weights and its bias.
template <bool kAdam, bool kNorm>
struct RowStep {
  std::int64_t classes, width;
  Step<kAdam> step;
  bool bias_decays;
  const float *rates, *decays, *d_bias, *d_weight;
  ProbeParameters to;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t row) const {
    const std::int64_t head = row / classes;
    Step<kAdam> own = step;
    own.rate = rates[head];
    own.decay = decays[head];
    const float* const d = d_weight + row * width;
    float* const w = to.weight.value + row * width;
    float* const m = to.weight.momentum + row * width;
    float* const v = kAdam ? to.weight.second + row * width : nullptr;
    const float* const scale = kNorm ? to.norm.value + 2 * head * width : nullptr;
    const float d_row = d_bias[row];
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      const float g = kNorm ? scale[j] * d[j] + scale[width + j] * d_row : d[j];
      float momentum = m[j], second = kAdam ? v[j] : 0.0F;
      const float value = own(w[j], g, momentum, second);
      w[j] = value;
      m[j] = momentum;
      if constexpr (kAdam) v[j] = second;
    }
    if (!bias_decays) own.decay = 0;
    float unused = 0;
    float& bias = to.bias.value[row];
    bias = own(bias, d_row, to.bias.momentum[row], kAdam ? to.bias.second[row] : unused);
  }
};

struct Effective {
  std::int64_t classes, width;
  const float *weight, *bias, *norm;
  float *effective, *effective_bias;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t row) const {
    const float *const w = weight + row * width, *const scale = norm + 2 * (row / classes) * width;
    float* const e = effective + row * width;
    float shifted = 0;
#pragma omp simd reduction(+ : shifted)
    for (std::int64_t j = 0; j < width; ++j) {
      e[j] = w[j] * scale[j];
      shifted += w[j] * scale[width + j];
    }
    effective_bias[row] = bias[row] + shifted;
  }
};

struct Copy {
  const float* from;
  float* to;
  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i) const { to[i] = from[i]; }
};

template <class Space, bool kAdam>
void update_all(device::Queue& queue, const ProbeShape& s, const ProbeRule& rule, const float* rates,
                const float* decays, const float* d_scores, const float* d_weight, const ProbeParameters& to) {
  Scratch scratch(queue);
  const bool norm = to.norm.value != nullptr;
  float* const d_bias = scratch.get<float>(s.columns());
  float* const next = norm ? scratch.get<float>(2 * s.heads * s.width) : nullptr;
  const auto step = step_of<kAdam>(rule);
  launch::loop<Space>(queue, "kernels/probe_bias", blocks_of(s.columns()),
                      BiasGradient{d_scores, s.rows, s.columns(), d_bias});
  if (!norm) {
    launch::loop<Space>(
        queue, "kernels/probe_update", s.columns(),
        RowStep<kAdam, false>{s.classes, s.width, step, rule.bias_decays, rates, decays, d_bias, d_weight, to});
    return;
  }
  launch::loop<Space>(
      queue, "kernels/probe_norm", s.heads * blocks_of(s.width),
      NormStep<kAdam>{s.classes, s.width, step, rates, d_bias, d_weight, to.weight.value, to.norm, next});
  launch::loop<Space>(
      queue, "kernels/probe_update", s.columns(),
      RowStep<kAdam, true>{s.classes, s.width, step, rule.bias_decays, rates, decays, d_bias, d_weight, to});
  launch::loop<Space>(queue, "kernels/probe_norm_kept", 2 * s.heads * s.width, Copy{next, to.norm.value});
}

}  // namespace

void probe_cross_entropy(device::Queue& queue, const ProbeShape& s, const std::int32_t* labels, float* scores,
                         double* losses) {
  launch::on_space(queue, {8 * s.rows * s.columns(), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    double* const of_rows = scratch.get<double>(s.rows * s.heads);
    launch::rows<Space>(queue, "kernels/probe_cross_entropy", s.rows * s.heads,
                        CrossEntropy{labels, scores, s.heads, s.classes, static_cast<double>(s.rows), of_rows});
    launch::rows<Space>(queue, "kernels/total", s.heads, Total{of_rows, losses, s.rows});
  });
}

void probe_binary_cross_entropy(device::Queue& queue, const ProbeShape& s, const std::int8_t* truth, float* scores,
                                double* losses) {
  launch::on_space(queue, {8 * s.rows * s.columns(), 3}, [&]<class Space>() {
    Scratch scratch(queue);
    double *const of_rows = scratch.get<double>(s.rows * s.heads), *const weights = scratch.get<double>(s.classes);
    launch::loop<Space>(queue, "kernels/probe_valid", s.classes, CountValid{truth, s.rows, s.classes, weights});
    launch::loop<Space>(queue, "kernels/probe_binary", s.rows * s.heads,
                        BinaryCrossEntropy{truth, weights, scores, s.heads, s.classes, s.rows, of_rows});
    launch::rows<Space>(queue, "kernels/total", s.heads, Total{of_rows, losses, s.rows});
  });
}

void probe_normalise(device::Queue& queue, std::int64_t rows, std::int64_t width, const float* x, double* running,
                     float* out) {
  launch::on_space(queue, {12 * rows * width, 1}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/probe_normalise", blocks_of(width),
                        Normalise{rows, width, x, running, out, true});
  });
}

void probe_normalise_by(device::Queue& queue, std::int64_t rows, std::int64_t width, const float* x,
                        const double* running, float* out) {
  launch::on_space(queue, {8 * rows * width, 1}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/probe_normalise", blocks_of(width),
                        Normalise{rows, width, x, const_cast<double*>(running), out, false});
  });
}

void probe_effective(device::Queue& queue, const ProbeShape& s, const float* weight, const float* bias,
                     const float* norm, float* effective, float* effective_bias) {
  launch::on_space(queue, {8 * s.columns() * s.width, 1}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/probe_effective", s.columns(),
                        Effective{s.classes, s.width, weight, bias, norm, effective, effective_bias});
  });
}

void probe_update(device::Queue& queue, const ProbeShape& s, const ProbeRule& rule, const float* rates,
                  const float* decays, const float* d_scores, const float* d_weight,
                  const ProbeParameters& parameters) {
  launch::on_space(queue, {20 * s.columns() * s.width, 4}, [&]<class Space>() {
    if (rule.adam)
      update_all<Space, true>(queue, s, rule, rates, decays, d_scores, d_weight, parameters);
    else
      update_all<Space, false>(queue, s, rule, rates, decays, d_scores, d_weight, parameters);
  });
}

}  // namespace seer::kernels
