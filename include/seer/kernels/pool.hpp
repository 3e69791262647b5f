// SPDX-License-Identifier: Apache-2.0
// 3x3 max pooling with stride 2 and one pixel of padding, as in ResNet's stem. Activations; NHWC.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

/// Output side, in pixels, for an input side of `side` pixels.
constexpr std::int64_t max_pooled(std::int64_t side) {
  return (side - 1) / 2 + 1;
}

/// pooled[n, h', w', c] = the largest of each window; places[n * h' * w' * c] = its index among the window's nine
/// pixels, row by row; the first one if several are equal.
void max_pool(device::Queue& queue, const device::Tensor& x, const device::Tensor& pooled, std::uint8_t* places);
/// d_x = gradient with respect to x.
void max_pool_backward(device::Queue& queue, const device::Tensor& d_pooled, const std::uint8_t* places,
                       const device::Tensor& d_x);

}  // namespace seer::kernels
