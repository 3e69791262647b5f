// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/pool.hpp"

#include "launch.hpp"

namespace seer::kernels {
namespace {

/// Computes one pixel and channel of the result.
template <class T>
struct LargestOfWindow {
  const T* x;
  T* pooled;
  std::uint8_t* places;
  std::int64_t h, w, out_h, out_w, c;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t pixel, std::int64_t channel) const {
    const std::int64_t image = pixel / (out_h * out_w), top = pixel / out_w % out_h * 2 - 1,
                       left = pixel % out_w * 2 - 1;
    float most = -std::numeric_limits<float>::infinity();
    std::int32_t place = 4;  // the middle pixel, which always exists
    for (std::int32_t k = 0; k < 9; ++k) {
      const std::int64_t row = top + k / 3, column = left + k % 3;
      if (row < 0 || row >= h || column < 0 || column >= w) continue;
      const float value = x[((image * h + row) * w + column) * c + channel];
      place = value > most ? k : place;
      most = value > most ? value : most;
    }
    pooled[pixel * c + channel] = most;
    places[pixel * c + channel] = static_cast<std::uint8_t>(place);
  }
};

/// Gradient of one source pixel: the sum over the windows, at most four, whose largest value it is.
template <class T>
struct FromWindows {
  const T* d_pooled;
  const std::uint8_t* places;
  T* d_x;
  std::int64_t h, w, out_h, out_w, c;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t pixel, std::int64_t channel) const {
    const std::int64_t image = pixel / (h * w), row = pixel / w % h, column = pixel % w;
    float sum = 0;
    for (std::int64_t r = row / 2; r <= (row + 1) / 2; ++r) {
      for (std::int64_t q = column / 2; q <= (column + 1) / 2; ++q) {
        if (r >= out_h || q >= out_w) continue;
        const std::int64_t at = ((image * out_h + r) * out_w + q) * c + channel;
        const std::int64_t here = (row - (2 * r - 1)) * 3 + column - (2 * q - 1);
        sum += places[at] == here ? static_cast<float>(d_pooled[at]) : 0.0F;
      }
    }
    d_x[pixel * c + channel] = sum;
  }
};

}  // namespace

void max_pool(device::Queue& queue, const device::Tensor& x, const device::Tensor& pooled, std::uint8_t* places) {
  launch::on_elements(queue, {x, pooled}, {x.bytes() + pooled.bytes() + pooled.elems()}, [&]<class Space, class T>() {
    launch::channels<Space>(queue, "kernels/max_pool", pooled.rows(), x.shape.c,
                            LargestOfWindow<T>{launch::elements<T>(x), launch::elements<T>(pooled), places, x.shape.h,
                                               x.shape.w, pooled.shape.h, pooled.shape.w, x.shape.c});
  });
}

void max_pool_backward(device::Queue& queue, const device::Tensor& d_pooled, const std::uint8_t* places,
                       const device::Tensor& d_x) {
  launch::on_elements(queue, {d_pooled, d_x}, {d_x.bytes() + d_pooled.bytes() + d_pooled.elems()},
                      [&]<class Space, class T>() {
                        launch::channels<Space>(
                            queue, "kernels/max_pool_backward", d_x.rows(), d_x.shape.c,
                            FromWindows<T>{launch::elements<T>(d_pooled), places, launch::elements<T>(d_x), d_x.shape.h,
                                           d_x.shape.w, d_pooled.shape.h, d_pooled.shape.w, d_x.shape.c});
                      });
}

}  // namespace seer::kernels
