// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "batchnorm_formula.hpp"

namespace seer::kernels {
namespace {

using launch::Layout;
using launch::Scratch;
using launch::Terms;

template <class T>
struct ShiftedMoments {
  using Element = T;
  const T* x;
  const float* shift;
  launch::detail::Given<T> first_row;  ///< makes the shift on a device
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    visit.channels(shift, first_row);
  }
  std::array<const T*, 1> inputs() const { return {x}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    const float d = x[i] - shift[k];
    return {d, d * d, 0, 0};
  }
};

/// Converts moments about the shift to moments about zero: sums[0] = rows, then the sums of x, then those of x^2.
template <class T>
struct PackedMoments {
  double* sums;
  const T* shift;  ///< null if there are no rows
  std::int64_t c;
  double rows;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t, std::int64_t k, const double (&moments)[2]) const {
    const double about = shift != nullptr ? static_cast<double>(static_cast<float>(shift[k])) : 0.0;
    if (k == 0) sums[0] = rows;
    sums[1 + k] = moments[0] + rows * about;
    sums[1 + c + k] = moments[1] + about * (2.0 * moments[0] + rows * about);
  }
};

struct Statistics {
  const double* sums;
  std::int64_t c;
  double eps, part;
  float *mean, *inv_std, *running_mean, *running_var;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t k) const {
    const double rows = sums[0], m = sums[1 + k] / rows, biased = sums[1 + c + k] / rows - m * m;
    const double variance = biased < 0.0 ? 0.0 : biased;
    mean[k] = static_cast<float>(m);
    inv_std[k] = static_cast<float>(1.0 / std::sqrt(variance + eps));
    if (running_mean != nullptr) {
      const double unbiased = rows > 1.0 ? variance * rows / (rows - 1.0) : variance;
      running_mean[k] = static_cast<float>((1.0 - part) * static_cast<double>(running_mean[k]) + part * m);
      running_var[k] = static_cast<float>((1.0 - part) * static_cast<double>(running_var[k]) + part * unbiased);
    }
  }
};

struct FromRunning {
  const float *running_mean, *running_var;
  double eps;
  float *mean, *inv_std;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t k) const {
    const double variance = static_cast<double>(running_var[k]);
    mean[k] = running_mean[k];
    inv_std[k] = static_cast<float>(1.0 / std::sqrt(variance + eps));
  }
};

template <Relu R, class T>
struct Apply {
  const T* x;
  Normalised bn;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    bn.fields(visit);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    const float v = bn(x[i], k);
    return R == Relu::yes ? rectified(v) : v;
  }
};

template <class T>
struct OpenTerms {
  using Element = T;
  const T* x;
  Normalised bn;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    bn.fields(visit);
  }
  std::array<const T*, 1> inputs() const { return {x}; }
  KOKKOS_FORCEINLINE_FUNCTION Terms operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    const float centred = x[i] - bn.mean[k], normal = bn.of_centred(centred, k);
    return {normal > 0.0F ? 1.0F : 0.0F, normal > 0.0F ? centred : 0.0F, 0, 0};
  }
};

template <class T>
struct ReluGate {
  const T* x;
  Normalised bn;
  const float* gate;
  std::int64_t width;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x);
    bn.fields(visit);
    visit.images(gate);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t image, std::int64_t i, std::int64_t k) const {
    return rectified(bn(x[i], k)) * gate[image * width + k];
  }
};

/// `Shortcut`: Normalised, or Unchanged.
template <class T, class Shortcut>
struct AddRelu {
  const T *x, *shortcut;
  Normalised bn;
  Shortcut shortcut_bn;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) {
    visit.elements(x, shortcut);
    bn.fields(visit);
    shortcut_bn.fields(visit);
  }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t k) const {
    return rectified(bn(x[i], k) + shortcut_bn(shortcut[i], k));
  }
};
struct Unchanged {
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float x, std::int64_t) const { return x; }
};

}  // namespace

void batchnorm_sums(Queue& queue, const Tensor& x, double* sums) {
  launch::on_elements(queue, {x}, {x.bytes(), 2}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x);
    const std::int64_t c = layout.c;
    const double rows = static_cast<double>(x.rows());
    const T* first = launch::elements<T>(x);  // moments about it: no cancellation where mean >> deviation
    const float* shift = nullptr;
    if (!launch::kOnDevice<Space> && x.rows() > 0) shift = launch::repeated<Space>(queue, scratch, layout, 1, first);
    launch::reduce<Space, 2>(queue, "kernels/batchnorm_sums", scratch, layout, false,
                             ShiftedMoments<T>{first, shift, {first, c}},
                             PackedMoments<T>{sums, x.rows() > 0 ? first : nullptr, c, rows});
  });
}

void batchnorm_statistics(Queue& queue, std::int64_t c, const double* sums, float eps, float* mean, float* inv_std,
                          float momentum, float* running_mean, float* running_var) {
  launch::on_space(queue, {0}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/batchnorm_statistics", c,
                        Statistics{sums, c, static_cast<double>(eps), static_cast<double>(momentum), mean, inv_std,
                                   running_mean, running_var});
  });
}

void batchnorm_from_running(Queue& queue, std::int64_t c, const float* running_mean, const float* running_var,
                            float eps, float* mean, float* inv_std) {
  launch::on_space(queue, {0}, [&]<class Space>() {
    launch::loop<Space>(queue, "kernels/batchnorm_from_running", c,
                        FromRunning{running_mean, running_var, static_cast<double>(eps), mean, inv_std});
  });
}

void batchnorm_apply(Queue& queue, const Tensor& x, const BatchNorm& bn, Relu relu, const Tensor& y) {
  launch::on_elements(queue, {x, y}, {x.bytes() + y.bytes()}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x);
    const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
    if (relu == Relu::yes)
      launch::map<Space>(queue, "kernels/batchnorm_relu", layout, launch::elements<T>(y),
                         Apply<Relu::yes, T>{launch::elements<T>(x), norm}, launch::result_kind(y, x));
    else
      launch::map<Space>(queue, "kernels/batchnorm_apply", layout, launch::elements<T>(y),
                         Apply<Relu::no, T>{launch::elements<T>(x), norm}, launch::result_kind(y, x));
  });
}

void batchnorm_relu_pool(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& pooled, float* open) {
  launch::need_f32(pooled);
  launch::on_elements(queue, {x}, {x.bytes(), 2}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x, true);
    const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
    const double factor = 1 / static_cast<double>(x.shape.h * x.shape.w);
    launch::reduce<Space, 2>(queue, "kernels/batchnorm_relu_pool", scratch, layout, true,
                             OpenTerms<T>{launch::elements<T>(x), norm},
                             OpenSums{bn, layout.c, x.shape.n, factor, open, pooled.f32()});
  });
}

void batchnorm_relu_gate(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& gate, const Tensor& y) {
  launch::need_f32(gate);
  launch::on_elements(queue, {x, y}, {x.bytes() + y.bytes()}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x, true);
    const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
    const float* gates = launch::repeated<Space>(queue, scratch, layout, layout.segments, gate.f32());
    launch::map<Space>(queue, "kernels/batchnorm_relu_gate", layout, launch::elements<T>(y),
                       ReluGate<T>{launch::elements<T>(x), norm, gates, launch::stride_of<Space>(layout)},
                       launch::result_kind(y, x));
  });
}

void batchnorm_add_relu(Queue& queue, const Tensor& x, const BatchNorm& bn, const Tensor& shortcut,
                        const BatchNorm* shortcut_bn, const Tensor& y) {
  launch::on_elements(queue, {x, shortcut, y}, {x.bytes() + shortcut.bytes() + y.bytes()}, [&]<class Space, class T>() {
    const T *values = launch::elements<T>(x), *other = launch::elements<T>(shortcut);
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x);
    const Normalised norm = normalised<Space>(queue, scratch, layout, bn);
    if (shortcut_bn == nullptr) {
      launch::map<Space>(queue, "kernels/batchnorm_add_relu", layout, launch::elements<T>(y),
                         AddRelu<T, Unchanged>{values, other, norm, {}}, launch::result_kind(y, x, shortcut));
    } else {
      const Normalised second = normalised<Space>(queue, scratch, layout, *shortcut_bn);
      launch::map<Space>(queue, "kernels/batchnorm_add_normalised_relu", layout, launch::elements<T>(y),
                         AddRelu<T, Normalised>{values, other, norm, second}, launch::result_kind(y, x, shortcut));
    }
  });
}

}  // namespace seer::kernels
