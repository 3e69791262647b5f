// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/block.hpp"

#include <array>

#include "seer/kernels/activation.hpp"
#include "seer/nn/product.hpp"

namespace seer::nn {
namespace {

device::Shape out_shape(const dnn::ConvShape& conv) {
  return {conv.n, conv.out_h(), conv.out_w(), conv.c_out};
}

std::int64_t add_conv(ParameterTable& parameters, const std::string& name, std::int64_t c_out, std::int64_t c_in_group,
                      std::int64_t kernel) {
  return parameters.add(name, {c_out, c_in_group, kernel, kernel}, Init::conv_normal,
                        static_cast<double>(kernel * kernel * c_out));
}

}  // namespace

Block::Block(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, const BlockShape& shape)
    : shape_(shape) {
  // Registers the tensors in torchvision's order.
  const auto w = shape.width, r = shape.squeeze;
  if (shape.projected()) {
    weight_projection_ = add_conv(parameters, prefix + ".proj.0.weight", w, shape.width_in, 1);
    bn_projection_ = BatchNormLayer(parameters, buffers, prefix + ".proj.1", w);
  }
  weight_a_ = add_conv(parameters, prefix + ".f.a.0.weight", w, shape.width_in, 1);
  bn_a_ = BatchNormLayer(parameters, buffers, prefix + ".f.a.1", w);
  weight_b_ = add_conv(parameters, prefix + ".f.b.0.weight", w, shape.group_width, 3);
  bn_b_ = BatchNormLayer(parameters, buffers, prefix + ".f.b.1", w);
  squeeze_weight_ = add_conv(parameters, prefix + ".f.se.fc1.weight", r, w, 1);
  squeeze_bias_ = parameters.add(prefix + ".f.se.fc1.bias", {r}, Init::uniform_fan, static_cast<double>(w));
  excite_weight_ = add_conv(parameters, prefix + ".f.se.fc2.weight", w, r, 1);
  excite_bias_ = parameters.add(prefix + ".f.se.fc2.bias", {w}, Init::uniform_fan, static_cast<double>(r));
  weight_c_ = add_conv(parameters, prefix + ".f.c.0.weight", w, w, 1);
  bn_c_ = BatchNormLayer(parameters, buffers, prefix + ".f.c.1", w);
}

dnn::ConvShape Block::conv_a(device::Shape x) const {
  return {.n = x.n, .h = x.h, .w = x.w, .c_in = shape_.width_in, .c_out = shape_.width};
}
dnn::ConvShape Block::conv_b(device::Shape x) const {
  return {.n = x.n,
          .h = x.h,
          .w = x.w,
          .c_in = shape_.width,
          .c_out = shape_.width,
          .kernel = 3,
          .stride = shape_.stride,
          .pad = 1,
          .groups = shape_.width / shape_.group_width};
}
dnn::ConvShape Block::conv_c(device::Shape x) const {
  return {.n = x.n, .h = x.h, .w = x.w, .c_in = shape_.width, .c_out = shape_.width};
}
dnn::ConvShape Block::conv_projection(device::Shape x) const {
  return {.n = x.n, .h = x.h, .w = x.w, .c_in = shape_.width_in, .c_out = shape_.width, .stride = shape_.stride};
}

void Block::forward(const Context& ctx, device::Tensor x, Saved& s, Keep keep) const {
  s.x = x;
  branches(ctx, s);
  join(ctx, s);
  if (!ctx.keeps()) {
    auto out = std::move(s.out);
    s = Saved{};
    s.out = std::move(out);
    return;
  }
  if (keep == Keep::all) return;
  s.a_out.release();
  s.b_out.release();
  if (keep == Keep::convolutions) return;
  for (auto* dropped : {&s.a, &s.b, &s.pooled, &s.hidden, &s.gate, &s.c, &s.projection}) dropped->release();
}

/// Everything before the sum with the shortcut. Gives the same bits when run again in replay mode.
void Block::branches(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  const auto a = conv_a(s.x.shape);
  s.a = ctx.activation(out_shape(a));
  ctx.dnn->conv_forward(queue, a, s.x, ctx.weights(weight_a_), *s.a);
  BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&bn_a_, &s.bn_a, *s.a}});
  activate_a(ctx, s);

  const auto b = conv_b(s.a_out->shape);
  s.b = ctx.activation(out_shape(b));
  ctx.dnn->conv_forward(queue, b, *s.a_out, ctx.weights(weight_b_), *s.b);
  BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&bn_b_, &s.bn_b, *s.b}});
  squeeze_excite(ctx, s);
  gate_b(ctx, s);

  const auto c = conv_c(s.b_out->shape);
  s.c = ctx.activation(out_shape(c));
  ctx.dnn->conv_forward(queue, c, *s.b_out, ctx.weights(weight_c_), *s.c);
  if (shape_.projected()) {
    const auto p = conv_projection(s.x.shape);
    s.projection = ctx.activation(out_shape(p));
    ctx.dnn->conv_forward(queue, p, s.x, ctx.weights(weight_projection_), *s.projection);
    BatchNormLayer::compute_statistics(
        ctx, std::array{BatchNormLayer::Part{&bn_c_, &s.bn_c, *s.c},
                        BatchNormLayer::Part{&bn_projection_, &s.bn_projection, *s.projection}});
  } else {
    BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&bn_c_, &s.bn_c, *s.c}});
  }
}

void Block::join(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  s.out = ctx.activation(s.c->shape);
  if (shape_.projected()) {
    const auto shortcut_bn = bn_projection_.view(ctx, s.bn_projection);
    kernels::batchnorm_add_relu(queue, *s.c, bn_c_.view(ctx, s.bn_c), *s.projection, &shortcut_bn, *s.out);
  } else {
    kernels::batchnorm_add_relu(queue, *s.c, bn_c_.view(ctx, s.bn_c), s.x, nullptr, *s.out);
  }
}

void Block::activate_a(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  s.a_out = ctx.activation(s.a->shape);
  kernels::batchnorm_apply(queue, *s.a, bn_a_.view(ctx, s.bn_a), kernels::Relu::yes, *s.a_out);
}

void Block::gate_b(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  s.b_out = ctx.activation(s.b->shape);
  kernels::batchnorm_relu_gate(queue, *s.b, bn_b_.view(ctx, s.bn_b), *s.gate, *s.b_out);
}

// pooled = mean(relu(bn(b))); hidden = relu(W1 pooled + b1); gate = sigmoid(W2 hidden + b2).
void Block::squeeze_excite(const Context& ctx, Saved& s) const {
  auto queue = ctx.queue;
  const auto n = s.b->shape.n, w = shape_.width, r = shape_.squeeze;
  const auto bn = bn_b_.view(ctx, s.bn_b);
  s.pooled = ctx.pool->tensor({n, 1, 1, w});
  kernels::batchnorm_relu_pool(queue, *s.b, bn, *s.pooled);
  s.hidden = ctx.pool->tensor({n, 1, 1, r});
  product(ctx, n, r, w, s.pooled->f32(), dnn::Transpose::no, ctx.at(squeeze_weight_), dnn::Transpose::yes,
          s.hidden->f32(), dnn::Accumulate::no, ctx.at(squeeze_bias_));
  kernels::relu(queue, *s.hidden);
  s.gate = ctx.pool->tensor({n, 1, 1, w});
  product(ctx, n, w, r, s.hidden->f32(), dnn::Transpose::no, ctx.at(excite_weight_), dnn::Transpose::yes, s.gate->f32(),
          dnn::Accumulate::no, ctx.at(excite_bias_));
  kernels::sigmoid(queue, *s.gate);
}

// Returns d_pooled [n, w]: the gradient that reaches relu(bn(b)) through the gate.
device::Loan Block::squeeze_excite_backward(const Context& ctx, device::Tensor d_b_out, Saved& s) const {
  auto queue = ctx.queue;
  const auto n = s.b->shape.n, w = shape_.width, r = shape_.squeeze;
  const auto d_gate = ctx.pool->tensor({n, 1, 1, w});
  kernels::gate_backward(queue, *s.b, bn_b_.view(ctx, s.bn_b), d_b_out, *d_gate);
  kernels::sigmoid_backward(queue, *s.gate, *d_gate);

  product(ctx, w, r, n, d_gate->f32(), dnn::Transpose::yes, s.hidden->f32(), dnn::Transpose::no,
          ctx.grad(excite_weight_), dnn::Accumulate::yes);
  kernels::bias_gradient(queue, *d_gate, ctx.grad(excite_bias_));
  const auto d_hidden = ctx.pool->tensor({n, 1, 1, r});
  product(ctx, n, r, w, d_gate->f32(), dnn::Transpose::no, ctx.at(excite_weight_), dnn::Transpose::no, d_hidden->f32());
  kernels::relu_backward(queue, *s.hidden, *d_hidden);

  product(ctx, r, w, n, d_hidden->f32(), dnn::Transpose::yes, s.pooled->f32(), dnn::Transpose::no,
          ctx.grad(squeeze_weight_), dnn::Accumulate::yes);
  kernels::bias_gradient(queue, *d_hidden, ctx.grad(squeeze_bias_));
  auto d_pooled = ctx.pool->tensor({n, 1, 1, w});
  product(ctx, n, w, r, d_hidden->f32(), dnn::Transpose::no, ctx.at(squeeze_weight_), dnn::Transpose::no,
          d_pooled->f32());
  return d_pooled;
}

device::Loan Block::backward(const Context& ctx, device::Loan d_out, Saved& s) const {
  auto queue = ctx.queue;
  const auto w = shape_.width;
  const bool projected = shape_.projected();
  if (!s.c) {
    Context again = ctx;
    again.mode = Mode::replay;
    branches(again, s);
  }
  const auto scratch = sums_scratch(ctx, 4 * w);
  double* sums = doubles(scratch);

  // Backward through the last ReLU: d_out becomes the gradient of the sum, which both branches share.
  const auto bn_c = bn_c_.view(ctx, s.bn_c);
  device::Loan d_c = ctx.activation(s.c->shape);
  if (projected) {
    const auto bn_p = bn_projection_.view(ctx, s.bn_projection);
    const auto projection = *s.projection;
    kernels::add_relu_backward_sums(queue, *s.out, *d_out, *s.c, bn_c, sums, &projection, &bn_p, sums + 2 * w);
    BatchNormLayer::reduce_backward(
        ctx, std::array{BatchNormLayer::BackwardPart{&bn_c_, &s.bn_c, sums},
                        BatchNormLayer::BackwardPart{&bn_projection_, &s.bn_projection, sums + 2 * w}});
    kernels::batchnorm_backward_apply(queue, *s.c, bn_c, {.d_y = *d_out}, sums, s.bn_c.rows, *d_c);
    kernels::batchnorm_backward_apply(queue, projection, bn_p, {.d_y = *d_out}, sums + 2 * w, s.bn_projection.rows,
                                      *d_out);
    s.projection.release();
  } else {
    kernels::add_relu_backward_sums(queue, *s.out, *d_out, *s.c, bn_c, sums, nullptr, nullptr, nullptr);
    BatchNormLayer::reduce_backward(ctx, std::array{BatchNormLayer::BackwardPart{&bn_c_, &s.bn_c, sums}});
    kernels::batchnorm_backward_apply(queue, *s.c, bn_c, {.d_y = *d_out}, sums, s.bn_c.rows, *d_c);
  }
  s.c.release();
  s.out.release();

  if (!s.b_out) gate_b(ctx, s);
  const auto c = conv_c(s.b_out->shape);
  ctx.dnn->conv_backward_weights(queue, c, *s.b_out, *d_c, ctx.grad(weight_c_), dnn::Accumulate::yes);
  s.b_out.release();
  device::Loan d_b = ctx.activation(s.b->shape);
  ctx.dnn->conv_backward_data(queue, c, *d_c, ctx.weights(weight_c_), *d_b);
  d_c.release();

  {
    const auto d_pooled = squeeze_excite_backward(ctx, *d_b, s);
    bn_b_.backward(ctx, s.bn_b, *s.b,
                   {.d_y = *d_b, .relu = kernels::Relu::yes, .gate = s.gate->f32(), .d_pooled = d_pooled->f32()}, *d_b);
  }
  s.b.release();

  if (!s.a_out) activate_a(ctx, s);
  const auto b = conv_b(s.a_out->shape);
  ctx.dnn->conv_backward_weights(queue, b, *s.a_out, *d_b, ctx.grad(weight_b_), dnn::Accumulate::yes);
  s.a_out.release();
  device::Loan d_a = ctx.activation(s.a->shape);
  ctx.dnn->conv_backward_data(queue, b, *d_b, ctx.weights(weight_b_), *d_a);
  d_b.release();

  bn_a_.backward(ctx, s.bn_a, *s.a, {.d_y = *d_a, .relu = kernels::Relu::yes}, *d_a);
  s.a.release();

  const auto a = conv_a(s.x.shape);
  ctx.dnn->conv_backward_weights(queue, a, s.x, *d_a, ctx.grad(weight_a_), dnn::Accumulate::yes);
  device::Loan d_x = ctx.activation(s.x.shape);
  ctx.dnn->conv_backward_data(queue, a, *d_a, ctx.weights(weight_a_), *d_x);
  d_a.release();

  if (projected) {
    const auto p = conv_projection(s.x.shape);
    ctx.dnn->conv_backward_weights(queue, p, s.x, *d_out, ctx.grad(weight_projection_), dnn::Accumulate::yes);
    const device::Loan d_shortcut = ctx.activation(s.x.shape);
    ctx.dnn->conv_backward_data(queue, p, *d_out, ctx.weights(weight_projection_), *d_shortcut);
    kernels::add(queue, *d_shortcut, *d_x);
  } else {
    kernels::add(queue, *d_out, *d_x);
  }
  return d_x;
}

}  // namespace seer::nn
