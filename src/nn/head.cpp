// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/head.hpp"

#include <fmt/format.h>

#include <array>

#include "seer/kernels/activation.hpp"
#include "seer/nn/product.hpp"

namespace seer::nn {

Head::Head(const config::Head& head, ParameterTable& parameters, ParameterTable& buffers)
    : dims_(head.dims), batchnorm_(head.batchnorm), prototypes_(head.prototypes) {
  for (std::size_t i = 0; i + 1 < dims_.size(); ++i) {
    const std::string name = fmt::format("head.{}", i);
    const double fan_in = static_cast<double>(dims_[i]);
    Linear layer;
    layer.weight = parameters.add(name + ".weight", {dims_[i + 1], dims_[i]}, Init::uniform_fan, fan_in);
    layer.bias = parameters.add(name + ".bias", {dims_[i + 1]}, Init::uniform_fan, fan_in);
    if (batchnorm_ && i + 2 < dims_.size()) {
      layer.bn = BatchNormLayer(parameters, buffers, name + ".norm", dims_[i + 1]);
    }
    layers_.push_back(std::move(layer));
  }
  prototype_weight_ = parameters.add("prototypes.weight", {prototypes_, dims_.back()}, Init::uniform_fan,
                                     static_cast<double>(dims_.back()));
}

void Head::forward(const Context& ctx, device::Tensor features, Pass& pass, device::Tensor scores) const {
  auto queue = ctx.queue;
  const auto rows = features.rows();
  pass.features = features;
  pass.layers.resize(layers_.size());
  device::Tensor x = features;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    auto& kept = pass.layers[i];
    const bool last = i + 1 == layers_.size();
    kept.out = ctx.pool->tensor({rows, 1, 1, dims_[i + 1]});
    if (last || !batchnorm_) {
      product(ctx, rows, dims_[i + 1], dims_[i], x.f32(), dnn::Transpose::no, ctx.at(layers_[i].weight),
              dnn::Transpose::yes, kept.out->f32(), dnn::Accumulate::no, ctx.at(layers_[i].bias));
      if (!last) kernels::relu(queue, *kept.out);
    } else {
      kept.linear = ctx.pool->tensor(kept.out->shape);
      product(ctx, rows, dims_[i + 1], dims_[i], x.f32(), dnn::Transpose::no, ctx.at(layers_[i].weight),
              dnn::Transpose::yes, kept.linear->f32(), dnn::Accumulate::no, ctx.at(layers_[i].bias));
      BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layers_[i].bn, &kept.bn, *kept.linear}});
      kernels::batchnorm_apply(queue, *kept.linear, layers_[i].bn.view(ctx, kept.bn), kernels::Relu::yes, *kept.out);
    }
    x = *kept.out;
  }
  pass.norms = ctx.pool->tensor({rows, 1, 1, 1});
  pass.embedding = ctx.pool->tensor({rows, 1, 1, dims_.back()});
  kernels::l2_normalize(queue, x, *pass.embedding, pass.norms->f32());
  if (scores) score(ctx, *pass.embedding, scores);
}

void Head::score(const Context& ctx, device::Tensor embeddings, device::Tensor scores) const {
  product(ctx, embeddings.rows(), prototypes_, dims_.back(), embeddings.f32(), dnn::Transpose::no,
          ctx.at(prototype_weight_), dnn::Transpose::yes, scores.f32());
}

void Head::backward(const Context& ctx, device::Tensor d_scores, Pass& pass, device::Tensor d_features) const {
  auto queue = ctx.queue;
  const auto rows = d_scores.rows();
  product(ctx, prototypes_, dims_.back(), rows, d_scores.f32(), dnn::Transpose::yes, pass.embedding->f32(),
          dnn::Transpose::no, ctx.grad(prototype_weight_), dnn::Accumulate::yes);
  device::Loan d = ctx.pool->tensor({rows, 1, 1, dims_.back()});
  product(ctx, rows, dims_.back(), prototypes_, d_scores.f32(), dnn::Transpose::no, ctx.at(prototype_weight_),
          dnn::Transpose::no, d->f32());
  kernels::l2_normalize_backward(queue, *pass.embedding, pass.norms->f32(), *d, *d);

  for (std::size_t i = layers_.size(); i-- > 0;) {
    auto& kept = pass.layers[i];
    const bool last = i + 1 == layers_.size();
    if (!last && batchnorm_) {
      layers_[i].bn.backward(ctx, kept.bn, *kept.linear, {.d_y = *d, .relu = kernels::Relu::yes}, *d);
    } else if (!last) {
      kernels::relu_backward(queue, *kept.out, *d);
    }
    const device::Tensor x = i == 0 ? pass.features : *pass.layers[i - 1].out;
    product(ctx, dims_[i + 1], dims_[i], rows, d->f32(), dnn::Transpose::yes, x.f32(), dnn::Transpose::no,
            ctx.grad(layers_[i].weight), dnn::Accumulate::yes);
    kernels::bias_gradient(queue, *d, ctx.grad(layers_[i].bias));
    device::Loan below;
    device::Tensor d_x = d_features;
    if (i > 0) {
      below = ctx.pool->tensor({rows, 1, 1, dims_[i]});
      d_x = *below;
    }
    product(ctx, rows, dims_[i], dims_[i + 1], d->f32(), dnn::Transpose::no, ctx.at(layers_[i].weight),
            dnn::Transpose::no, d_x.f32());
    d = std::move(below);
    kept = Pass::Layer{};
  }
  pass = Pass{};
}

}  // namespace seer::nn
