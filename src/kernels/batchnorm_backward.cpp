// SPDX-License-Identifier: Apache-2.0
#include "batchnorm_formula.hpp"

namespace seer::kernels {
namespace {

using launch::Layout;
using launch::Scratch;
using launch::Terms;

enum class Form { plain, relu, gate };

/// The gradient that reaches bn(x) at one element (BatchNormGradient in the header).
template <Form F, class T>
struct Gradient {
  const T* d_y;
  const float *gate, *d_pooled;  // [images, width]
  std::int64_t width;
  float inv_pixels;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(d_y);
    if constexpr (F == Form::gate) {
      visit.images(gate);
      visit.images(d_pooled);
    }
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t image, std::int64_t i, std::int64_t k, float normal) const {
    float g = d_y[i];
    if constexpr (F == Form::gate) g = g * gate[image * width + k] + d_pooled[image * width + k] * inv_pixels;
    if constexpr (F != Form::plain) g = normal > 0.0F ? g : 0.0F;
    return g;
  }
};

template <Form F, class T>
struct BackwardTerms {
  using Element = T;
  const T* x;
  Normalised bn;
  Gradient<F, T> gradient;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    bn.fields(visit);
    gradient.fields(visit);
  }
  std::array<const T*, 2> inputs() const { return {x, gradient.d_y}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t image, std::int64_t i, std::int64_t k) const {
    const float centred = x[i] - bn.mean[k];
    const float g = gradient(image, i, k, bn.of_centred(centred, k));
    return {g, g * centred, 0, 0};
  }
};

/// d_x = scale * (g - mean(g)) - slope * (x - mean)
template <Form F, class T>
struct BackwardApply {
  const T* x;
  Normalised bn;
  Gradient<F, T> gradient;
  const float *mean_gradient, *slope;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    bn.fields(visit);
    gradient.fields(visit);
    visit.channels(mean_gradient);
    visit.channels(slope);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t image, std::int64_t i, std::int64_t k) const {
    const float centred = x[i] - bn.mean[k];
    const float g = gradient(image, i, k, bn.of_centred(centred, k));
    return (g - mean_gradient[k]) * bn.scale[k] - centred * slope[k];
  }
};

template <class T>
struct OpenGradients {
  using Element = T;
  const T *x, *d_y;
  Normalised bn;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x, d_y);
    bn.fields(visit);
  }
  std::array<const T*, 2> inputs() const { return {x, d_y}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    const float centred = x[i] - bn.mean[k], g = bn.of_centred(centred, k) > 0.0F ? static_cast<float>(d_y[i]) : 0.0F;
    return {g, g * centred, 0, 0};
  }
};

/// Both sums of the gated gradient, from its sums over the open elements of each image.
struct GatedSums {
  const float *gate, *d_pooled, *open, *d_open;
  double* sums;
  std::int64_t images, c;
  double inv_pixels;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k) const {
    double sum = 0, centred = 0;
    for (std::int64_t at = k; at < images * c; at += c) {
      const auto a = static_cast<double>(gate[at]), b = static_cast<double>(d_pooled[at]) * inv_pixels;
      sum += a * static_cast<double>(d_open[at]) + b * static_cast<double>(open[at]);
      centred += a * static_cast<double>(d_open[images * c + at]) + b * static_cast<double>(open[images * c + at]);
    }
    sums[k] = sum;
    sums[c + k] = centred;
  }
};

template <class T>
struct ReluMask {
  const T *out, *d_out;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(out, d_out); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return out[i] > 0.0F ? static_cast<float>(d_out[i]) : 0.0F;
  }
};

template <bool kShortcut, class T>
struct AddReluTerms {
  using Element = T;
  const T *out, *d_out, *x, *shortcut;
  const float *mean, *shortcut_mean;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(out, d_out, x);
    visit.channels(mean);
    if constexpr (kShortcut) {
      visit.elements(shortcut);
      visit.channels(shortcut_mean);
    }
  }
  auto inputs() const {
    if constexpr (kShortcut)
      return std::array<const T*, 4>{out, d_out, x, shortcut};
    else
      return std::array<const T*, 3>{out, d_out, x};
  }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    const float g = out[i] > 0.0F ? static_cast<float>(d_out[i]) : 0.0F;
    Terms terms{g, g * (x[i] - mean[k]), 0, g};
    if constexpr (kShortcut) terms.c = g * (shortcut[i] - shortcut_mean[k]);
    return terms;
  }
};

/// Packs both sums of a normalisation for one message.
struct PackedSums {
  double* sums;
  std::int64_t c;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&sum)[2]) const {
    sums[k] = sum[0];
    sums[c + k] = sum[1];
  }
};

/// The same, with the sums of the shortcut's normalisation, which gets the same gradient.
struct PackedSumsOfBoth {
  double *sums, *shortcut_sums;
  std::int64_t c;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&sum)[3]) const {
    sums[k] = shortcut_sums[k] = sum[0];
    sums[c + k] = sum[1];
    shortcut_sums[c + k] = sum[2];
  }
};

struct ParameterGradients {
  const double* local_sums;
  const float* inv_std;
  float *d_gamma, *d_beta;
  std::int64_t c;
  bool add;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t k) const {
    d_beta[k] = (add ? d_beta[k] : 0.0F) + static_cast<float>(local_sums[k]);
    d_gamma[k] = (add ? d_gamma[k] : 0.0F) + static_cast<float>(static_cast<double>(inv_std[k]) * local_sums[c + k]);
  }
};

struct MeanGradient {
  const double* sums;
  double rows;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t k) const {
    return static_cast<float>(sums[k] / rows);
  }
};

struct Slope {
  BatchNorm bn;
  const double* sums;
  std::int64_t c;
  double rows;
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t k) const {
    const double inv_std = static_cast<double>(bn.inv_std[k]);
    return static_cast<float>(static_cast<double>(bn.gamma[k]) * inv_std * inv_std * inv_std * sums[c + k] / rows);
  }
};

/// Calls run.operator()<Form>() with the form of the gradient.
template <class Run>
void on_form(const BatchNormGradient& g, Run&& run) {
  if (g.gate != nullptr) {
    ensure(g.d_pooled != nullptr && g.open != nullptr && g.d_open != nullptr, "a gated gradient needs all its sums");
    run.template operator()<Form::gate>();
  } else if (g.relu == Relu::yes) {
    run.template operator()<Form::relu>();
  } else {
    run.template operator()<Form::plain>();
  }
}

template <class Space, Form F, class T>
Gradient<F, T> gradient_of(const Queue& queue, Scratch& scratch, const Layout& layout, const Tensor& x,
                           const BatchNormGradient& g) {
  Gradient<F, T> gradient{launch::elements<T>(g.d_y), nullptr, nullptr, launch::stride_of<Space>(layout),
                          1.0F / static_cast<float>(x.shape.h * x.shape.w)};
  if constexpr (F == Form::gate) {
    gradient.gate = launch::repeated<Space>(queue, scratch, layout, layout.segments, g.gate);
    gradient.d_pooled = launch::repeated<Space>(queue, scratch, layout, layout.segments, g.d_pooled);
  }
  return gradient;
}

}  // namespace

void gate_backward(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& d_y, const Tensor& d_gate,
                   float* d_open) {
  launch::need_f32(d_gate);
  launch::on_elements(queue, {x, d_y}, {x.bytes() + d_y.bytes(), 2}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x, true);
    const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
    launch::reduce<Space, 2>(queue, "kernels/gate_backward", scratch, layout, true,
                             OpenGradients<T>{launch::elements<T>(x), launch::elements<T>(d_y), norm},
                             OpenSums{bn, layout.c, x.shape.n, 1, d_open, d_gate.f32()});
  });
}

void relu_backward(Queue& queue, const Tensor& out, const Tensor& d_out) {
  launch::on_elements(queue, {out, d_out}, {out.bytes() + 2 * d_out.bytes()}, [&]<class Space, class T>() {
    T* gradient = launch::elements<T>(d_out);
    launch::map<Space>(queue, "kernels/relu_backward", launch::flat(out.elems()), gradient,
                       ReluMask<T>{launch::elements<T>(out), gradient});
  });
}

void batchnorm_backward_sums(Queue& queue, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                             double* sums) {
  // Six floats for each image and channel.
  const auto cost =
      g.gate != nullptr ? launch::Cost{24 * x.shape.n * x.shape.c} : launch::Cost{x.bytes() + g.d_y.bytes(), 2};
  launch::on_elements(queue, {x, g.d_y}, cost, [&]<class Space, class T>() {
    on_form(g, [&]<Form F>() {
      if constexpr (F == Form::gate) {
        launch::channels<Space>(queue, "kernels/batchnorm_gated_sums", 1, x.shape.c,
                                GatedSums{g.gate, g.d_pooled, g.open, g.d_open, sums, x.shape.n, x.shape.c,
                                          1 / static_cast<double>(x.shape.h * x.shape.w)});
      } else {
        Scratch scratch(queue);
        const Layout layout = launch::layout_of<Space>(x);
        const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
        const Gradient<F, T> gradient = gradient_of<Space, F, T>(queue, scratch, layout, x, g);
        launch::reduce<Space, 2>(queue, "kernels/batchnorm_backward_sums", scratch, layout, false,
                                 BackwardTerms<F, T>{launch::elements<T>(x), norm, gradient},
                                 PackedSums{sums, layout.c});
      }
    });
  });
}

void add_relu_backward_sums(Queue& queue, const Tensor& out, const Tensor& d_out, const Tensor& x, const BatchNorm& bn,
                            double* sums, const Tensor* shortcut, const BatchNorm* shortcut_bn, double* shortcut_sums) {
  ensure(shortcut == nullptr || (shortcut_bn != nullptr && shortcut_sums != nullptr),
         "a normalised shortcut needs its statistics and sums");
  launch::on_elements(
      queue, {out, d_out, x, shortcut != nullptr ? *shortcut : x},
      {out.bytes() + 2 * d_out.bytes() + x.bytes() + (shortcut != nullptr ? shortcut->bytes() : 0), 2},
      [&]<class Space, class T>() {
        const T *values = launch::elements<T>(x), *after = launch::elements<T>(out);
        T* gradient = launch::elements<T>(d_out);
        Scratch scratch(queue);
        const Layout layout = launch::layout_of<Space>(x);
        const std::int64_t c = layout.c;
        const float* mean = launch::repeated<Space>(queue, scratch, layout, 1, bn.mean);
        if (shortcut == nullptr) {
          launch::reduce<Space, 2, true>(queue, "kernels/add_relu_backward_sums", scratch, layout, false,
                                         AddReluTerms<false, T>{after, gradient, values, nullptr, mean, nullptr},
                                         PackedSums{sums, c}, gradient);
          return;
        }
        const float* second = launch::repeated<Space>(queue, scratch, layout, 1, shortcut_bn->mean);
        launch::reduce<Space, 3, true>(
            queue, "kernels/add_relu_backward_sums_shortcut", scratch, layout, false,
            AddReluTerms<true, T>{after, gradient, values, launch::elements<T>(*shortcut), mean, second},
            PackedSumsOfBoth{sums, shortcut_sums, c}, gradient);
      });
}

void batchnorm_parameter_gradients(Queue& queue, std::int64_t c, const double* local_sums, const float* inv_std,
                                   float* d_gamma, float* d_beta, bool add) {
  launch::on_space(queue, {0}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/batchnorm_parameter_gradients", c,
                        ParameterGradients{local_sums, inv_std, d_gamma, d_beta, c, add});
  });
}

void batchnorm_backward_apply(Queue& queue, const Tensor& x, const BatchNorm& bn, const BatchNormGradient& g,
                              const double* sums, double rows, const Tensor& d_x) {
  launch::on_elements(
      queue, {x, g.d_y, d_x}, {x.bytes() + g.d_y.bytes() + d_x.bytes(), 2}, [&]<class Space, class T>() {
        on_form(g, [&]<Form F>() {
          Scratch scratch(queue);
          const Layout layout = launch::layout_of<Space>(x, F == Form::gate);
          const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
          const Gradient<F, T> gradient = gradient_of<Space, F, T>(queue, scratch, layout, x, g);
          const auto [mean_gradient, slope] = launch::channel_values<Space>(
              queue, scratch, layout, 1, MeanGradient{sums, rows}, Slope{bn, sums, layout.c, rows});
          launch::map<Space>(queue, "kernels/batchnorm_backward_apply", layout, launch::elements<T>(d_x),
                             BackwardApply<F, T>{launch::elements<T>(x), norm, gradient, mean_gradient, slope},
                             launch::result_kind(d_x, x, g.d_y));
        });
      });
}

}  // namespace seer::kernels
