// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/layers.hpp"

#include <array>
#include <limits>

#include "seer/kernels/activation.hpp"

namespace seer::nn {
namespace {

/// An operand of a product, rounded to ctx.compute. Version 0: not kept for the next product.
struct Operand {
  device::Loan loan;
  const void* data;
  Operand(const Context& ctx, dnn::Weights values, std::int64_t count) : data(values.data) {
    if (ctx.compute == DType::f32) return;
    if (values.version != 0 && ctx.rounded != nullptr) {
      data = ctx.rounded->get(ctx.queue, values, count, ctx.compute);
      return;
    }
    loan = ctx.pool->tensor({1, 1, 1, count}, ctx.compute);
    kernels::cast(ctx.queue, {const_cast<void*>(values.data), loan->shape, DType::f32, loan->space}, *loan);
    data = loan->data;
  }
};

/// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c) (+ bias), as Backend::gemm, with operands rounded to ctx.compute.
void product(const Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, dnn::Transpose ta,
             dnn::Weights b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate, const float* bias = nullptr) {
  const Operand first(ctx, {a}, m * k), second(ctx, b, k * n);
  ctx.dnn->gemm(ctx.queue, m, n, k, ctx.compute, first.data, ta, second.data, tb, c, accumulate, bias);
}

}  // namespace

void Linear::forward(const Context& ctx, device::Tensor x, device::Tensor y) const {
  product(ctx, x.rows(), out, in, x.f32(), dnn::Transpose::no, ctx.weights(weight), dnn::Transpose::yes, y.f32(),
          dnn::Accumulate::no, bias < 0 ? nullptr : ctx.at(bias));
}

void Linear::backward_weights(const Context& ctx, device::Tensor x, device::Tensor d_y) const {
  product(ctx, out, in, d_y.rows(), d_y.f32(), dnn::Transpose::yes, {x.f32()}, dnn::Transpose::no, ctx.grad(weight),
          ctx.accumulate());
  if (bias >= 0) kernels::bias_gradient(ctx.queue, d_y, ctx.grad(bias), ctx.add_gradients);
}

void Linear::backward_data(const Context& ctx, device::Tensor d_y, device::Tensor d_x) const {
  product(ctx, d_y.rows(), in, out, d_y.f32(), dnn::Transpose::no, ctx.weights(weight), dnn::Transpose::no, d_x.f32(),
          dnn::Accumulate::no);
}

BatchNormLayer::BatchNormLayer(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix,
                               std::int64_t channels)
    : channels_(channels),
      gamma_(parameters.add_norm(prefix + ".weight", channels, Init::one)),
      beta_(parameters.add_norm(prefix + ".bias", channels, Init::zero)),
      running_mean_(buffers.add(prefix + ".running_mean", {channels}, Init::zero)),
      running_var_(buffers.add(prefix + ".running_var", {channels}, Init::one)) {}

kernels::BatchNorm BatchNormLayer::view(const Context& ctx, const Saved& saved) const {
  return {saved.mean(), saved.inv_std(), ctx.at(gamma_), ctx.at(beta_)};
}

void BatchNormLayer::compute_statistics(const Context& ctx, std::span<const Part> parts) {
  if (ctx.mode == Mode::replay) return;  // uses the statistics of the first run
  std::int64_t count = 0;
  for (const auto& part : parts) {
    const auto c = part.layer->channels_;
    part.saved->channels = c;
    part.saved->statistics = ctx.pool->tensor({2, 1, 1, c});
    count += 1 + 2 * c;
  }
  if (ctx.mode == Mode::eval || ctx.fixed_statistics) {
    for (const auto& part : parts) {
      kernels::batchnorm_from_running(ctx.queue, part.layer->channels_, ctx.buffers + part.layer->running_mean_,
                                      ctx.buffers + part.layer->running_var_, kEpsilon, part.saved->mean(),
                                      part.saved->inv_std());
      // With constant statistics the backward pass subtracts no mean: a mean over infinitely many rows is 0.
      part.saved->rows = std::numeric_limits<double>::infinity();
    }
    return;
  }
  const auto scratch = sums_scratch(ctx, count);
  double* sums = doubles(scratch);
  for (const auto& part : parts) {
    kernels::batchnorm_sums(ctx.queue, part.x, sums);
    sums += 1 + 2 * part.layer->channels_;
  }
  if (ctx.group != nullptr) ctx.group->sum(ctx.queue, doubles(scratch), static_cast<std::size_t>(count));
  sums = doubles(scratch);
  const std::int64_t ranks = ctx.group != nullptr ? ctx.group->size() : 1;
  for (const auto& part : parts) {
    const auto& layer = *part.layer;
    part.saved->rows = static_cast<double>(part.x.rows() * ranks);
    kernels::batchnorm_statistics(ctx.queue, layer.channels_, sums, kEpsilon, part.saved->mean(), part.saved->inv_std(),
                                  kMomentum, ctx.buffers + layer.running_mean_, ctx.buffers + layer.running_var_);
    sums += 1 + 2 * layer.channels_;
  }
}

void BatchNormLayer::reduce_backward(const Context& ctx, std::span<const BackwardPart> parts) {
  std::size_t count = 0;
  for (const auto& part : parts) {
    const auto& layer = *part.layer;
    kernels::batchnorm_parameter_gradients(ctx.queue, layer.channels_, part.sums, part.saved->inv_std(),
                                           ctx.grad(layer.gamma_), ctx.grad(layer.beta_), ctx.add_gradients);
    count += static_cast<std::size_t>(2 * layer.channels_);
  }
  if (ctx.group != nullptr && !ctx.fixed_statistics) ctx.group->sum(ctx.queue, parts.front().sums, count);
}

void BatchNormLayer::backward(const Context& ctx, const Saved& saved, device::Tensor x,
                              const kernels::BatchNormGradient& g, device::Tensor d_x) const {
  const auto bn = view(ctx, saved);
  const auto scratch = sums_scratch(ctx, 2 * channels_);
  kernels::batchnorm_backward_sums(ctx.queue, x, bn, g, doubles(scratch));
  reduce_backward(ctx, std::array{BackwardPart{this, &saved, doubles(scratch)}});
  kernels::batchnorm_backward_apply(ctx.queue, x, bn, g, doubles(scratch), saved.rows, d_x);
}

ConvNorm::ConvNorm(ParameterTable& parameters, ParameterTable& buffers, const std::string& convolution,
                   const std::string& norm, const dnn::ConvShape& shape)
    : weight_(
          parameters.add_convolution(convolution + ".weight", shape.c_out, shape.c_in / shape.groups, shape.kernel)),
      shape_(shape),
      bn_(parameters, buffers, norm, shape.c_out) {
  shape_.pad = shape.kernel / 2;
}

dnn::ConvShape ConvNorm::at(device::Shape x) const {
  auto out = shape_;
  out.n = x.n;
  out.h = x.h;
  out.w = x.w;
  return out;
}

device::Loan ConvNorm::convolve(const Context& ctx, device::Tensor x) const {
  const auto shape = at(x.shape);
  auto y = ctx.activation({shape.n, shape.out_h(), shape.out_w(), shape.c_out});
  ctx.dnn->conv_forward(ctx.queue, shape, x, ctx.weights(weight_), *y);
  return y;
}

void ConvNorm::backward_weights(const Context& ctx, device::Tensor x, device::Tensor d_y) const {
  ctx.dnn->conv_backward_weights(ctx.queue, at(x.shape), x, d_y, ctx.grad(weight_), ctx.accumulate());
}

device::Loan ConvNorm::backward_data(const Context& ctx, device::Tensor d_y, device::Shape x) const {
  auto d_x = ctx.activation(x);
  ctx.dnn->conv_backward_data(ctx.queue, at(x), d_y, ctx.weights(weight_), *d_x);
  return d_x;
}

void ConvNorm::add_backward_data(const Context& ctx, device::Tensor d_y, device::Tensor d_x) const {
  if (!ctx.dnn->can_add(at(d_x.shape), ctx.compute))
    return kernels::add(ctx.queue, *backward_data(ctx, d_y, d_x.shape), d_x);
  ctx.dnn->conv_backward_data(ctx.queue, at(d_x.shape), d_y, ctx.weights(weight_), d_x, dnn::Accumulate::yes);
}

}  // namespace seer::nn
