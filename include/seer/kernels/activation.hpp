// SPDX-License-Identifier: Apache-2.0
// Small elementwise and row operations. Tensors are float unless the comment says "activations": those are float, bf16
// or f16, one type per call, with arithmetic in float and sums in double.
//
// On a device queue, all pointers and tensors must refer to device memory (copy: to the tensors' spaces). A call
// returns as soon as its kernels are queued.
#pragma once

#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// In place: x = max(x, 0).
void relu(Queue& queue, const Tensor& x);
/// In place: x = 1 / (1 + exp(-x)).
void sigmoid(Queue& queue, const Tensor& x);
/// In place: d_y = d_y * y * (1 - y), y the sigmoid's output.
void sigmoid_backward(Queue& queue, const Tensor& y, const Tensor& d_y);
/// d_bias[c] = or += sum over rows of d_y[rows, c].
void bias_gradient(Queue& queue, const Tensor& d_y, float* d_bias, bool add = true);

/// pooled[n, c] (float) = mean over h, w of activations.
void global_average_pool(Queue& queue, const Tensor& x, const Tensor& pooled);
/// d_x[n, h, w, c] (activations) = d_pooled[n, c] / (h*w).
void global_average_pool_backward(Queue& queue, const Tensor& d_pooled, const Tensor& d_x);

/// y = x / max(|x|_2, 1e-12) per row; norms[rows] kept for backward. y may be x.
void l2_normalize(Queue& queue, const Tensor& x, const Tensor& y, float* norms);
/// d_x = (d_y - y (y . d_y)) / max(norm, 1e-12); d_y / 1e-12 for rows whose norm was below 1e-12. d_x may be d_y.
void l2_normalize_backward(Queue& queue, const Tensor& y, const float* norms, const Tensor& d_y, const Tensor& d_x);

/// dst = src. Both have the same type.
void copy(Queue& queue, const Tensor& src, const Tensor& dst);
/// dst = src between any two of float, bf16 and f16. Rounds to nearest, ties to even; overflow gives infinity.
void cast(Queue& queue, const Tensor& src, const Tensor& dst);
/// The same for `rows` rows of `elems` elements, in one launch. The strides are the distances between row starts.
void cast_rows(Queue& queue, const Tensor& src, std::int64_t src_stride, const Tensor& dst, std::int64_t dst_stride,
               std::int64_t rows, std::int64_t elems);
/// dst += src, activations.
void add(Queue& queue, const Tensor& src, const Tensor& dst);
/// x *= factor.
void scale(Queue& queue, const Tensor& x, float factor);
/// dst = momentum * dst + (1 - momentum) * src.
void follow(Queue& queue, const Tensor& src, double momentum, const Tensor& dst);
/// x = value, activations.
void fill(Queue& queue, const Tensor& x, float value);

}  // namespace seer::kernels
