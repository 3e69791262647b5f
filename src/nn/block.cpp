// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/block.hpp"

#include <fmt/format.h>

#include "seer/kernels/activation.hpp"

namespace seer::nn {

SqueezeExcitation::SqueezeExcitation(ParameterTable& parameters, const std::string& prefix, std::int64_t width,
                                     std::int64_t squeezed) {
  const auto add = [&](const std::string& name, std::int64_t in, std::int64_t out) -> Linear {
    return {in, out, parameters.add_convolution(name + ".weight", out, in, 1),
            parameters.add(name + ".bias", {out}, Init::uniform_fan, static_cast<double>(in))};
  };
  squeeze_ = add(prefix + ".fc1", width, squeezed);
  excite_ = add(prefix + ".fc2", squeezed, width);
}

void SqueezeExcitation::forward(const Context& ctx, device::Tensor x, const kernels::BatchNorm& bn, Saved& s) const {
  const auto n = x.shape.n;
  s.pooled = ctx.pool->tensor({n, 1, 1, squeeze_.in});
  s.open = ctx.pool->tensor({2, n, 1, squeeze_.in});
  kernels::batchnorm_relu_pool(ctx.queue, x, bn, *s.pooled, s.open->f32());
  s.hidden = ctx.pool->tensor({n, 1, 1, squeeze_.out});
  squeeze_.forward(ctx, *s.pooled, *s.hidden);
  kernels::relu(ctx.queue, *s.hidden);
  s.gate = ctx.pool->tensor({n, 1, 1, excite_.out});
  excite_.forward(ctx, *s.hidden, *s.gate);
  kernels::sigmoid(ctx.queue, *s.gate);
}

device::Loan SqueezeExcitation::backward(const Context& ctx, device::Tensor x, const kernels::BatchNorm& bn,
                                         device::Tensor d_y, const Saved& s, float* d_open) const {
  const auto d_gate = ctx.pool->tensor(s.gate->shape);
  kernels::gate_backward(ctx.queue, x, bn, d_y, *d_gate, d_open);
  kernels::sigmoid_backward(ctx.queue, *s.gate, *d_gate);
  excite_.backward_weights(ctx, *s.hidden, *d_gate);
  const auto d_hidden = ctx.pool->tensor(s.hidden->shape);
  excite_.backward_data(ctx, *d_gate, *d_hidden);
  kernels::relu_backward(ctx.queue, *s.hidden, *d_hidden);
  squeeze_.backward_weights(ctx, *s.pooled, *d_hidden);
  auto d_pooled = ctx.pool->tensor(s.pooled->shape);
  squeeze_.backward_data(ctx, *d_hidden, *d_pooled);
  return d_pooled;
}

Block::Block(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, const Shape& s)
    : projected_(s.width_in != s.width || s.stride != 1), squeezes_(s.squeezed > 0) {
  // Tensors are registered in torchvision's order.
  const auto project = [&](const std::string& name) {
    if (!projected_) return;
    projection_ = ConvNorm(parameters, buffers, name + ".0", name + ".1",
                           {.c_in = s.width_in, .c_out = s.width, .stride = s.stride});
  };
  const auto set = [&](std::size_t i, const dnn::ConvShape& shape) {
    last_ = i;
    const auto names =
        squeezes_ ? std::array{fmt::format("{}.f.{}.0", prefix, "abc"[i]), fmt::format("{}.f.{}.1", prefix, "abc"[i])}
                  : std::array{fmt::format("{}.conv{}", prefix, i + 1), fmt::format("{}.bn{}", prefix, i + 1)};
    layers_[i] = ConvNorm(parameters, buffers, names[0], names[1], shape);
  };
  const auto inner = s.inner_width;
  if (squeezes_) project(prefix + ".proj");
  if (inner == 0) {
    set(0, {.c_in = s.width_in, .c_out = s.width, .kernel = 3, .stride = s.stride});
    set(1, {.c_in = s.width, .c_out = s.width, .kernel = 3});
  } else {
    set(0, {.c_in = s.width_in, .c_out = inner});
    set(1, {.c_in = inner, .c_out = inner, .kernel = 3, .stride = s.stride, .groups = s.groups});
    if (squeezes_) squeeze_ = SqueezeExcitation(parameters, prefix + ".f.se", inner, s.squeezed);
    set(2, {.c_in = inner, .c_out = s.width});
  }
  if (!squeezes_) project(prefix + ".downsample");
}

void Block::activate(const Context& ctx, Saved& s, std::size_t i) const {
  s.activated[i] = ctx.activation(s.convolved[i]->shape);
  if (gates(i))
    kernels::batchnorm_relu_gate(ctx.queue, *s.convolved[i], bn(ctx, s, i), *s.squeeze.gate, *s.activated[i]);
  else
    kernels::batchnorm_apply(ctx.queue, *s.convolved[i], bn(ctx, s, i), kernels::Relu::yes, *s.activated[i]);
}

/// Everything before the sum with the shortcut. Gives the same bits when run again in replay mode.
void Block::convolve(const Context& ctx, Saved& s) const {
  using Part = BatchNormLayer::Part;
  for (std::size_t i = 0; i < last_; ++i) {
    s.convolved[i] = layers_[i].convolve(ctx, source(s, i));
    BatchNormLayer::compute_statistics(ctx, std::array{Part{&layers_[i].bn(), &s.bn[i], *s.convolved[i]}});
    if (gates(i)) squeeze_.forward(ctx, *s.convolved[i], bn(ctx, s, i), s.squeeze);
    activate(ctx, s, i);
  }
  s.convolved[last_] = layers_[last_].convolve(ctx, source(s, last_));
  if (projected_) s.projection = projection_.convolve(ctx, s.x);
  const std::array parts{Part{&layers_[last_].bn(), &s.bn[last_], *s.convolved[last_]},
                         Part{&projection_.bn(), &s.bn_projection, *s.projection}};
  BatchNormLayer::compute_statistics(ctx, ends(parts));
}

void Block::forward(const Context& ctx, device::Tensor x, Saved& s, Keep keep) const {
  s.x = x;
  convolve(ctx, s);
  s.out = ctx.activation(s.convolved[last_]->shape);
  const auto shortcut = projected_ ? projection_.bn().view(ctx, s.bn_projection) : kernels::BatchNorm{};
  kernels::batchnorm_add_relu(ctx.queue, *s.convolved[last_], bn(ctx, s, last_), projected_ ? *s.projection : s.x,
                              projected_ ? &shortcut : nullptr, *s.out);
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
  s.squeeze = {};
}

device::Loan Block::backward(const Context& ctx, device::Loan d_out, Saved& s) const {
  using Part = BatchNormLayer::BackwardPart;
  if (!s.convolved[last_]) convolve(ctx.replay(), s);
  const auto width = layers_[last_].width();
  const auto scratch = sums_scratch(ctx, 4 * width);
  double* const sums = doubles(scratch);
  double* const projection_sums = sums + 2 * width;

  // Backward through the last ReLU: d_out becomes the gradient of the sum, which both branches share.
  const auto last_bn = bn(ctx, s, last_);
  device::Loan d = ctx.activation(s.convolved[last_]->shape);
  const auto* const projection = projected_ ? &*s.projection : nullptr;
  const auto shortcut = projected_ ? projection_.bn().view(ctx, s.bn_projection) : kernels::BatchNorm{};
  kernels::add_relu_backward_sums(ctx.queue, *s.out, *d_out, *s.convolved[last_], last_bn, sums, projection, &shortcut,
                                  projection_sums);
  BatchNormLayer::reduce_backward(ctx, ends(std::array{Part{&layers_[last_].bn(), &s.bn[last_], sums},
                                                       Part{&projection_.bn(), &s.bn_projection, projection_sums}}));
  kernels::batchnorm_backward_apply(ctx.queue, *s.convolved[last_], last_bn, {.d_y = *d_out}, sums, s.bn[last_].rows,
                                    *d);
  if (projected_) {
    kernels::batchnorm_backward_apply(ctx.queue, *projection, shortcut, {.d_y = *d_out}, projection_sums,
                                      s.bn_projection.rows, *d_out);
    s.projection.release();
  }
  s.out.release();

  // d: gradient of the output of layer i's convolution.
  for (std::size_t i = last_;; --i) {
    s.convolved[i].release();
    if (i > 0 && !s.activated[i - 1]) activate(ctx, s, i - 1);
    const auto x = source(s, i);
    layers_[i].backward_weights(ctx, x, *d);
    if (i == 0) break;
    s.activated[i - 1].release();
    d = layers_[i].backward_data(ctx, *d, x.shape);
    kernels::BatchNormGradient gradient{.d_y = *d, .relu = kernels::Relu::yes};
    device::Loan d_pooled, d_open;
    if (gates(i - 1)) {
      d_open = ctx.pool->tensor(s.squeeze.open->shape);
      d_pooled = squeeze_.backward(ctx, *s.convolved[i - 1], bn(ctx, s, i - 1), *d, s.squeeze, d_open->f32());
      gradient.gate = s.squeeze.gate->f32();
      gradient.d_pooled = d_pooled->f32();
      gradient.open = s.squeeze.open->f32();
      gradient.d_open = d_open->f32();
    }
    layers_[i - 1].bn().backward(ctx, s.bn[i - 1], *s.convolved[i - 1], gradient, *d);
  }

  // The first layer's gradient is added to the shortcut's.
  if (projected_) {
    projection_.backward_weights(ctx, s.x, *d_out);
    d_out = projection_.backward_data(ctx, *d_out, s.x.shape);
  }
  layers_[0].add_backward_data(ctx, *d, *d_out);
  return d_out;
}

}  // namespace seer::nn
