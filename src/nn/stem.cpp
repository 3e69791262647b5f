// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/stem.hpp"

#include <array>

#include "seer/kernels/activation.hpp"

namespace seer::nn {

Stem::Stem(ParameterTable& parameters, ParameterTable& buffers, const std::string& convolution, const std::string& norm,
           const Shape& shape)
    : shape_(shape),
      weight_(parameters.add(convolution + ".weight", {shape.width, 3, shape.kernel, shape.kernel}, Init::conv_normal,
                             static_cast<double>(shape.kernel * shape.kernel * shape.width))),
      bn_(parameters, buffers, norm, shape.width) {}

dnn::ConvShape Stem::convolution(device::Shape x) const {
  return {.n = x.n,
          .h = x.h,
          .w = x.w,
          .c_in = 3,
          .c_out = shape_.width,
          .kernel = shape_.kernel,
          .stride = shape_.stride,
          .pad = shape_.kernel / 2};
}

/// Gives the same bits when run again in replay mode.
void Stem::convolve(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  const auto shape = convolution(s.images.shape);
  s.convolved = ctx.activation({shape.n, shape.out_h(), shape.out_w(), shape.c_out});
  ctx.dnn->conv_forward(queue, shape, s.images, ctx.weights(weight_), *s.convolved);
  BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&bn_, &s.bn, *s.convolved}});
}

void Stem::forward(const Context& ctx, device::Tensor images, Saved& s, Keep keep) const {
  auto queue = ctx.queue;
  s.images = images;
  if (images.dtype != ctx.compute) {
    s.rounded = ctx.activation(images.shape);
    kernels::cast(queue, images, *s.rounded);
    s.images = *s.rounded;
  }
  convolve(ctx, s);
  s.out = ctx.activation(s.convolved->shape);
  kernels::batchnorm_apply(queue, *s.convolved, bn_.view(ctx, s.bn), kernels::Relu::yes, *s.out);
  if (keep == Keep::input || !ctx.keeps()) s.convolved.release();
}

void Stem::backward(const Context& ctx, device::Loan d_out, Saved& s, device::Tensor d_images) const {
  auto queue = ctx.queue;
  if (!s.convolved) {
    Context again = ctx;
    again.mode = Mode::replay;
    convolve(again, s);
  }
  const auto shape = convolution(s.images.shape);
  const auto& d = *d_out;
  bn_.backward(ctx, s.bn, *s.convolved, {.d_y = d, .relu = kernels::Relu::yes}, d);
  ctx.dnn->conv_backward_weights(queue, shape, s.images, d, ctx.grad(weight_), dnn::Accumulate::yes);
  if (!d_images) return;
  const auto d_rounded = ctx.activation(d_images.shape);
  ctx.dnn->conv_backward_data(queue, shape, d, ctx.weights(weight_), *d_rounded);
  kernels::cast(queue, *d_rounded, d_images);
}

}  // namespace seer::nn
