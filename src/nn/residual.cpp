// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/residual.hpp"

#include <fmt/format.h>

#include "seer/kernels/activation.hpp"

namespace seer::nn {
namespace {

device::Shape out_shape(const dnn::ConvShape& conv) {
  return {conv.n, conv.out_h(), conv.out_w(), conv.c_out};
}

}  // namespace

dnn::ConvShape ResidualBlock::Layer::at(device::Shape x) const {
  return {.n = x.n,
          .h = x.h,
          .w = x.w,
          .c_in = c_in,
          .c_out = c_out,
          .kernel = kernel,
          .stride = stride,
          .pad = kernel / 2,
          .groups = groups};
}

/// shape: input channels, output channels, kernel, stride, groups.
ResidualBlock::Layer ResidualBlock::layer(ParameterTable& parameters, ParameterTable& buffers,
                                          const std::string& convolution, const std::string& norm,
                                          std::array<std::int64_t, 5> shape) const {
  const auto [c_in, c_out, kernel, stride, groups] = shape;
  Layer out{.c_in = c_in, .c_out = c_out, .kernel = kernel, .stride = stride, .groups = groups, .bn = {}};
  out.weight = parameters.add(convolution + ".weight", {c_out, c_in / groups, kernel, kernel}, Init::conv_normal,
                              static_cast<double>(kernel * kernel * c_out));
  out.bn = BatchNormLayer(parameters, buffers, norm, c_out);
  return out;
}

ResidualBlock::ResidualBlock(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix,
                             const Shape& s)
    : projected_(s.projected()) {
  const auto add = [&](std::array<std::int64_t, 5> shape) {
    const auto number = count_ + 1;
    layers_[count_++] = layer(parameters, buffers, fmt::format("{}.conv{}", prefix, number),
                              fmt::format("{}.bn{}", prefix, number), shape);
  };
  if (s.inner_width == 0) {
    add({s.width_in, s.width, 3, s.stride, 1});
    add({s.width, s.width, 3, 1, 1});
  } else {
    add({s.width_in, s.inner_width, 1, 1, 1});
    add({s.inner_width, s.inner_width, 3, s.stride, s.groups});
    add({s.inner_width, s.width, 1, 1, 1});
  }
  if (projected_) {
    projection_ = layer(parameters, buffers, prefix + ".downsample.0", prefix + ".downsample.1",
                        {s.width_in, s.width, 1, s.stride, 1});
  }
}

void ResidualBlock::activate(const Context& ctx, Saved& s, std::size_t i) const {
  auto queue = ctx.queue;
  s.activated[i] = ctx.activation(s.convolved[i]->shape);
  kernels::batchnorm_apply(queue, *s.convolved[i], layers_[i].bn.view(ctx, s.bn[i]), kernels::Relu::yes,
                           *s.activated[i]);
}

/// Everything before the sum with the shortcut. Gives the same bits when run again in replay mode.
void ResidualBlock::convolve(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  const auto run = [&](const Layer& layer, device::Tensor x, device::Loan& out) {
    const auto shape = layer.at(x.shape);
    out = ctx.activation(out_shape(shape));
    ctx.dnn->conv_forward(queue, shape, x, ctx.weights(layer.weight), *out);
  };
  const auto last = count_ - 1;
  for (std::size_t i = 0; i < last; ++i) {
    run(layers_[i], source(s, i), s.convolved[i]);
    BatchNormLayer::compute_statistics(ctx,
                                       std::array{BatchNormLayer::Part{&layers_[i].bn, &s.bn[i], *s.convolved[i]}});
    activate(ctx, s, i);
  }
  run(layers_[last], source(s, last), s.convolved[last]);
  const BatchNormLayer::Part part{&layers_[last].bn, &s.bn[last], *s.convolved[last]};
  if (!projected_) return BatchNormLayer::compute_statistics(ctx, std::array{part});
  run(projection_, s.x, s.projection);
  BatchNormLayer::compute_statistics(
      ctx, std::array{part, BatchNormLayer::Part{&projection_.bn, &s.bn_projection, *s.projection}});
}

void ResidualBlock::forward(const Context& ctx, device::Tensor x, Saved& s, Keep keep) const {
  auto queue = ctx.queue;
  s.x = x;
  convolve(ctx, s);
  const auto last = count_ - 1;
  s.out = ctx.activation(s.convolved[last]->shape);
  const auto bn = layers_[last].bn.view(ctx, s.bn[last]);
  if (projected_) {
    const auto shortcut = projection_.bn.view(ctx, s.bn_projection);
    kernels::batchnorm_add_relu(queue, *s.convolved[last], bn, *s.projection, &shortcut, *s.out);
  } else {
    kernels::batchnorm_add_relu(queue, *s.convolved[last], bn, s.x, nullptr, *s.out);
  }
  if (!ctx.keeps()) {
    auto out = std::move(s.out);
    s = Saved{};
    s.out = std::move(out);
    return;
  }
  if (keep == Keep::all) return;
  for (auto& activated : s.activated) activated.release();
  if (keep == Keep::convolutions) return;
  for (auto& convolved : s.convolved) convolved.release();
  s.projection.release();
}

device::Loan ResidualBlock::backward(const Context& ctx, device::Loan d_out, Saved& s) const {
  auto queue = ctx.queue;
  const auto last = count_ - 1;
  if (!s.convolved[last]) {
    Context again = ctx;
    again.mode = Mode::replay;
    convolve(again, s);
  }
  const auto width = layers_[last].c_out;
  const auto scratch = sums_scratch(ctx, 4 * width);
  double* const sums = doubles(scratch);

  // Backward through the last ReLU: d_out becomes the gradient of the sum, which both branches share.
  const auto bn = layers_[last].bn.view(ctx, s.bn[last]);
  const BatchNormLayer::BackwardPart part{&layers_[last].bn, &s.bn[last], sums};
  device::Loan d = ctx.activation(s.convolved[last]->shape);
  if (projected_) {
    const auto shortcut = projection_.bn.view(ctx, s.bn_projection);
    const auto projection = *s.projection;
    kernels::add_relu_backward_sums(queue, *s.out, *d_out, *s.convolved[last], bn, sums, &projection, &shortcut,
                                    sums + 2 * width);
    BatchNormLayer::reduce_backward(
        ctx, std::array{part, BatchNormLayer::BackwardPart{&projection_.bn, &s.bn_projection, sums + 2 * width}});
    kernels::batchnorm_backward_apply(queue, *s.convolved[last], bn, {.d_y = *d_out}, sums, s.bn[last].rows, *d);
    kernels::batchnorm_backward_apply(queue, projection, shortcut, {.d_y = *d_out}, sums + 2 * width,
                                      s.bn_projection.rows, *d_out);
    s.projection.release();
  } else {
    kernels::add_relu_backward_sums(queue, *s.out, *d_out, *s.convolved[last], bn, sums, nullptr, nullptr, nullptr);
    BatchNormLayer::reduce_backward(ctx, std::array{part});
    kernels::batchnorm_backward_apply(queue, *s.convolved[last], bn, {.d_y = *d_out}, sums, s.bn[last].rows, *d);
  }
  s.out.release();

  // d: gradient of the output of layer i's convolution.
  for (std::size_t i = last;; --i) {
    s.convolved[i].release();
    if (i > 0 && !s.activated[i - 1]) activate(ctx, s, i - 1);
    const auto x = source(s, i);
    const auto shape = layers_[i].at(x.shape);
    ctx.dnn->conv_backward_weights(queue, shape, x, *d, ctx.grad(layers_[i].weight), dnn::Accumulate::yes);
    if (i > 0) s.activated[i - 1].release();
    device::Loan d_x = ctx.activation(x.shape);
    ctx.dnn->conv_backward_data(queue, shape, *d, ctx.weights(layers_[i].weight), *d_x);
    d = std::move(d_x);
    if (i == 0) break;
    layers_[i - 1].bn.backward(ctx, s.bn[i - 1], *s.convolved[i - 1], {.d_y = *d, .relu = kernels::Relu::yes}, *d);
  }

  if (projected_) {
    const auto shape = projection_.at(s.x.shape);
    ctx.dnn->conv_backward_weights(queue, shape, s.x, *d_out, ctx.grad(projection_.weight), dnn::Accumulate::yes);
    const device::Loan d_shortcut = ctx.activation(s.x.shape);
    ctx.dnn->conv_backward_data(queue, shape, *d_out, ctx.weights(projection_.weight), *d_shortcut);
    kernels::add(queue, *d_shortcut, *d);
  } else {
    kernels::add(queue, *d_out, *d);
  }
  return d;
}

}  // namespace seer::nn
