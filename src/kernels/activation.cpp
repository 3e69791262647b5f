// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/activation.hpp"

#include <cstring>

#include "row_formulas.hpp"
#include "seer/device/copy.hpp"

namespace seer::kernels {
namespace {

using launch::Layout;
using launch::Scratch;

struct Rectified {
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return v < 0.0F ? 0.0F : v; }
};

struct Sigmoid {
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return 1.0F / (1.0F + exponential(v, -1.0)); }
};

struct Spread {
  const float* pooled;
  std::int64_t width;
  float inv_pixels;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.images(pooled); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t image, std::int64_t, std::int64_t k) const {
    return pooled[image * width + k] * inv_pixels;
  }
};

struct SigmoidBackward {
  const float *y, *d_y;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(y, d_y); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return d_y[i] * y[i] * (1.0F - y[i]);
  }
};

template <class T>
struct Sum {
  const T *a, *b;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, b); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const { return a[i] + b[i]; }
};

/// Converts element i of rows with gaps between them.
template <class From, class To>
struct ConvertedRows {
  const From* from;
  To* to;
  std::int64_t elems, from_stride, to_stride;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t row = i / elems, k = i % elems;
    to[row * to_stride + k] = static_cast<float>(from[row * from_stride + k]);
  }
};

struct Filled {
  float value;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto&) {}
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t, std::int64_t) const { return value; }
};

/// momentum * teacher + (1 - momentum) * student.
struct Followed {
  const float *teacher, *student;
  double momentum;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(teacher, student); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t, std::int64_t i, std::int64_t) const {
    return static_cast<float>(momentum * static_cast<double>(teacher[i]) +
                              (1 - momentum) * static_cast<double>(student[i]));
  }
};

struct OverFloor {
  KOKKOS_FORCEINLINE_FUNCTION float operator()(float v) const { return static_cast<float>(wide(v) / kNormFloor); }
};

/// The part of the gradient that is orthogonal to the row.
struct Across {
  const float *unit, *gradient;
  double along, factor;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(unit, gradient); }
  KOKKOS_FORCEINLINE_FUNCTION float operator()(std::int64_t k) const {
    return static_cast<float>((wide(gradient[k]) - wide(unit[k]) * along) * factor);
  }
};

struct UnitRowBackward {
  const float *unit, *norms, *gradient;
  float* dst;
  std::int64_t c;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    const float *u = unit + row * c, *g = gradient + row * c;
    float* d = dst + row * c;
    const double norm = static_cast<double>(norms[row]);
    if (norm < kNormFloor)  // the divisor was the constant floor: no projection
      return team.write(c, Each{g, OverFloor{}}, d);
    const double along = team.sum(c, Product{u, g});
    team.write(c, Across{u, g, along, 1.0 / norm}, d);
  }
};

}  // namespace

void relu(Queue& queue, const Tensor& x) {
  in_place(queue, "kernels/relu", x, Rectified{});
}

void sigmoid(Queue& queue, const Tensor& x) {
  in_place(queue, "kernels/sigmoid", x, Sigmoid{});
}

void sigmoid_backward(Queue& queue, const Tensor& y, const Tensor& d_y) {
  launch::on_floats(queue, {y}, {3 * y.bytes()}, [&]<class Space>() {
    launch::map<Space>(queue, "kernels/sigmoid_backward", launch::flat(y.elems()), d_y.f32(),
                       SigmoidBackward{y.f32(), d_y.f32()});
  });
}

void bias_gradient(Queue& queue, const Tensor& d_y, float* d_bias, bool add) {
  launch::on_floats(queue, {d_y}, {d_y.bytes(), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    launch::reduce<Space, 1>(queue, "kernels/bias_gradient", scratch, launch::layout_of<Space>(d_y), false,
                             launch::SumTerm<float>{d_y.f32()}, launch::Added<float>{d_bias, add});
  });
}

void global_average_pool(Queue& queue, const Tensor& x, const Tensor& pooled) {
  launch::need_f32(pooled);
  launch::on_elements(queue, {x}, {x.bytes(), 2}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(x, true);
    launch::reduce<Space, 1>(queue, "kernels/global_average_pool", scratch, layout, true,
                             launch::SumTerm<T>{launch::elements<T>(x)},
                             launch::Mean{pooled.f32(), layout.c, static_cast<double>(x.shape.h * x.shape.w)});
  });
}

void global_average_pool_backward(Queue& queue, const Tensor& d_pooled, const Tensor& d_x) {
  launch::need_f32(d_pooled);
  launch::on_elements(queue, {d_x}, {d_x.bytes()}, [&]<class Space, class T>() {
    Scratch scratch(queue);
    const Layout layout = launch::layout_of<Space>(d_x, true);
    const float* values = launch::repeated<Space>(queue, scratch, layout, layout.segments, d_pooled.f32());
    launch::map<Space>(
        queue, "kernels/global_average_pool_backward", layout, launch::elements<T>(d_x),
        Spread{values, launch::stride_of<Space>(layout), 1.0F / static_cast<float>(d_x.shape.h * d_x.shape.w)},
        launch::Result::fresh);
  });
}

void l2_normalize(Queue& queue, const Tensor& x, const Tensor& y, float* norms) {
  launch::on_floats(queue, {x}, {3 * x.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/l2_normalize", x.rows(), UnitRow{x.f32(), y.f32(), norms, x.shape.c});
  });
}

void l2_normalize_backward(Queue& queue, const Tensor& y, const float* norms, const Tensor& d_y, const Tensor& d_x) {
  launch::on_floats(queue, {y}, {4 * y.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/l2_normalize_backward", y.rows(),
                        UnitRowBackward{y.f32(), norms, d_y.f32(), d_x.f32(), y.shape.c});
  });
}

void copy(Queue& queue, const Tensor& src, const Tensor& dst) {
  if (queue.only_plans(src.bytes() + dst.bytes(), src.dtype)) return;
  ensure(src.elems() == dst.elems() && src.dtype == dst.dtype, "copy between tensors of different sizes");
  if (src.data == dst.data || src.elems() == 0) return;
  const device::Timed timed(queue, "copy", static_cast<double>(src.bytes() + dst.bytes()));
  if (queue.space == device::Space::device)
    return device::copy(queue, src.data, src.space, dst.data, dst.space, static_cast<std::size_t>(src.bytes()));
  using Bytes = Kokkos::View<char*, launch::Host::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  const auto count = static_cast<std::size_t>(src.bytes());
  Kokkos::deep_copy(launch::space_of<launch::Host>(queue), Bytes(static_cast<char*>(dst.data), count),
                    Bytes(static_cast<char*>(src.data), count));
}

void cast(Queue& queue, const Tensor& src, const Tensor& dst) {
  if (src.dtype == dst.dtype) return copy(queue, src, dst);
  ensure(src.elems() == dst.elems(), "cast between tensors of different sizes");
  launch::on_elements(queue, {src}, {src.bytes() + dst.bytes()}, [&]<class Space, class From>() {
    launch::with_element(dst.dtype, [&]<class To>() {
      launch::map<Space>(queue, "kernels/cast", launch::flat(src.elems()), launch::elements<To>(dst),
                         Value<From>{launch::elements<From>(src)}, launch::Result::fresh);
    });
  });
}

void cast_rows(Queue& queue, const Tensor& src, std::int64_t src_stride, const Tensor& dst, std::int64_t dst_stride,
               std::int64_t rows, std::int64_t elems) {
  const auto bytes = rows * elems * static_cast<std::int64_t>(dtype_bytes(src.dtype) + dtype_bytes(dst.dtype));
  launch::on_elements(queue, {src}, {bytes}, [&]<class Space, class From>() {
    launch::with_element(dst.dtype, [&]<class To>() {
      launch::loop<Space>(queue, "kernels/cast_rows", rows * elems,
                          ConvertedRows<From, To>{launch::elements<From>(src), launch::elements<To>(dst), elems,
                                                  src_stride, dst_stride});
    });
  });
}

void add(Queue& queue, const Tensor& src, const Tensor& dst) {
  launch::on_elements(queue, {src, dst}, {src.bytes() + 2 * dst.bytes()}, [&]<class Space, class T>() {
    T* sum = launch::elements<T>(dst);
    launch::map<Space>(queue, "kernels/add", launch::flat(src.elems()), sum, Sum<T>{sum, launch::elements<T>(src)});
  });
}

void scale(Queue& queue, const Tensor& x, float factor) {
  in_place(queue, "kernels/scale", x, Scaled{factor});
}

void follow(Queue& queue, const Tensor& src, double momentum, const Tensor& dst) {
  launch::on_floats(queue, {src}, {src.bytes() + 2 * dst.bytes()}, [&]<class Space>() {
    launch::map<Space>(queue, "kernels/follow", launch::flat(src.elems()), dst.f32(),
                       Followed{dst.f32(), src.f32(), momentum});
  });
}

void fill(Queue& queue, const Tensor& x, float value) {
  launch::on_elements(queue, {x}, {x.bytes()}, [&]<class Space, class T>() {
    launch::map<Space>(queue, "kernels/fill", launch::flat(x.elems()), launch::elements<T>(x), Filled{value});
  });
}

}  // namespace seer::kernels
