// SPDX-License-Identifier: Apache-2.0
// Mixing of neighbouring images (method.md 4.5).
#pragma once

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"
#include "seer/kernels/image.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// In place, for the images 2k and 2k + 1 of [n, h, w, c] floats: a, b become share * a + (1 - share) * b and
/// share * b + (1 - share) * a. With odd n the last image stays as it is.
void mix_pairs(Queue& queue, const Tensor& images, float share);
/// The same images exchange the rectangle `box`, in pixels; it lies inside.
void exchange_boxes(Queue& queue, const Tensor& images, const Box& box);

}  // namespace seer::kernels
