// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/head.hpp"

#include <fmt/format.h>

#include <array>

#include "seer/kernels/activation.hpp"
#include "seer/nn/product.hpp"

namespace seer::nn {

struct Head::Pass final : nn::Pass {
  device::Tensor features;
  struct Layer {
    device::Loan linear;  ///< before BatchNorm and ReLU (kept only with BatchNorm)
    device::Loan out;     ///< after
    BatchNormLayer::Saved bn;
  };
  std::vector<Layer> layers;
  device::Loan embedding, norms;
  device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next

  device::Tensor output(std::size_t segment) const override {
    return segment + 1 == layers.size() ? *embedding : *layers.at(segment).out;
  }
  device::Tensor gradient() const override { return *d_out; }
  /// Gives every tensor back; the memory of the list stays.
  void clear() {
    features = {};
    for (auto* loan : {&embedding, &norms, &d_out}) loan->release();
    for (auto& layer : layers) layer = {};
  }
};

Head::Head(const config::Head& head, std::int64_t frozen_updates, ParameterTable& parameters, ParameterTable& buffers)
    : dims_(head.dims), batchnorm_(head.batchnorm), prototypes_(head.prototypes) {
  for (std::size_t i = 0; i + 1 < dims_.size(); ++i) {
    const std::string name = fmt::format("head.{}", i);
    const double fan_in = static_cast<double>(dims_[i]);
    Linear layer;
    begins_.push_back(parameters.block_elems());
    layer.weight = parameters.add(name + ".weight", {dims_[i + 1], dims_[i]}, Init::uniform_fan, fan_in);
    layer.bias = parameters.add(name + ".bias", {dims_[i + 1]}, Init::uniform_fan, fan_in);
    if (batchnorm_ && i + 2 < dims_.size()) {
      layer.bn = BatchNormLayer(parameters, buffers, name + ".norm", dims_[i + 1]);
    }
    layers_.push_back(std::move(layer));
  }
  begins_.push_back(parameters.block_elems());
  prototype_weight_ =
      parameters.add("prototypes.weight", {prototypes_, dims_.back()}, Init::uniform_fan,
                     static_cast<double>(dims_.back()), {.unit_rows = true, .frozen_updates = frozen_updates});
  begins_.push_back(parameters.block_elems());
}

std::unique_ptr<nn::Pass> Head::make_pass(PassOptions) const {
  return std::make_unique<Pass>();  // nothing is recomputed, and outputs stay
}

void Head::linear_forward(const Context& ctx, std::size_t i, Pass& pass) const {
  auto queue = ctx.queue;
  const auto& layer = layers_[i];
  auto& kept = pass.layers[i];
  const device::Tensor x = i == 0 ? pass.features : *pass.layers[i - 1].out;
  const auto rows = x.rows();
  const bool last = i + 1 == layers_.size();
  const bool normalised = batchnorm_ && !last;
  kept.out = ctx.pool->tensor({rows, 1, 1, dims_[i + 1]});
  if (normalised) kept.linear = ctx.pool->tensor(kept.out->shape);
  product(ctx, rows, dims_[i + 1], dims_[i], x.f32(), dnn::Transpose::no, ctx.at(layer.weight), dnn::Transpose::yes,
          normalised ? kept.linear->f32() : kept.out->f32(), dnn::Accumulate::no, ctx.at(layer.bias));
  if (normalised) {
    BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layer.bn, &kept.bn, *kept.linear}});
    kernels::batchnorm_apply(queue, *kept.linear, layer.bn.view(ctx, kept.bn), kernels::Relu::yes, *kept.out);
  } else if (!last) {
    kernels::relu(queue, *kept.out);
  } else {
    pass.norms = ctx.pool->tensor({rows, 1, 1, 1});
    pass.embedding = ctx.pool->tensor(kept.out->shape);
    kernels::l2_normalize(queue, *kept.out, *pass.embedding, pass.norms->f32());
  }
}

void Head::forward(const Context& ctx, std::size_t segment, device::Tensor features, nn::Pass& of,
                   device::Tensor scores) const {
  auto& pass = static_cast<Pass&>(of);
  if (segment == 0) {
    pass.features = features;
    pass.layers.resize(layers_.size());
  }
  if (segment < layers_.size()) {
    linear_forward(ctx, segment, pass);
  } else if (scores) {
    score(ctx, *pass.embedding, scores);
  }
}

void Head::score(const Context& ctx, device::Tensor embeddings, device::Tensor scores) const {
  product(ctx, embeddings.rows(), prototypes_, dims_.back(), embeddings.f32(), dnn::Transpose::no,
          ctx.at(prototype_weight_), dnn::Transpose::yes, scores.f32());
}

void Head::linear_backward(const Context& ctx, std::size_t i, Pass& pass, device::Tensor d_features) const {
  auto queue = ctx.queue;
  const auto& layer = layers_[i];
  auto& kept = pass.layers[i];
  const auto d = std::move(pass.d_out);
  const auto rows = d->rows();
  if (i + 1 == layers_.size()) {
    kernels::l2_normalize_backward(queue, *pass.embedding, pass.norms->f32(), *d, *d);
  } else if (batchnorm_) {
    layer.bn.backward(ctx, kept.bn, *kept.linear, {.d_y = *d, .relu = kernels::Relu::yes}, *d);
  } else {
    kernels::relu_backward(queue, *kept.out, *d);
  }
  const device::Tensor x = i == 0 ? pass.features : *pass.layers[i - 1].out;
  product(ctx, dims_[i + 1], dims_[i], rows, d->f32(), dnn::Transpose::yes, x.f32(), dnn::Transpose::no,
          ctx.grad(layer.weight), dnn::Accumulate::yes);
  kernels::bias_gradient(queue, *d, ctx.grad(layer.bias));
  if (i > 0) pass.d_out = ctx.pool->tensor({rows, 1, 1, dims_[i]});
  const device::Tensor d_x = i > 0 ? *pass.d_out : d_features;
  product(ctx, rows, dims_[i], dims_[i + 1], d->f32(), dnn::Transpose::no, ctx.at(layer.weight), dnn::Transpose::no,
          d_x.f32());
  kept = Pass::Layer{};
}

void Head::backward(const Context& ctx, std::size_t segment, device::Tensor d_scores, nn::Pass& of,
                    device::Tensor d_features) const {
  auto& pass = static_cast<Pass&>(of);
  if (segment < layers_.size()) {
    linear_backward(ctx, segment, pass, d_features);
    if (segment == 0) pass.clear();
    return;
  }
  const auto rows = d_scores.rows();
  product(ctx, prototypes_, dims_.back(), rows, d_scores.f32(), dnn::Transpose::yes, pass.embedding->f32(),
          dnn::Transpose::no, ctx.grad(prototype_weight_), dnn::Accumulate::yes);
  pass.d_out = ctx.pool->tensor({rows, 1, 1, dims_.back()});
  product(ctx, rows, dims_.back(), prototypes_, d_scores.f32(), dnn::Transpose::no, ctx.at(prototype_weight_),
          dnn::Transpose::no, pass.d_out->f32());
}

}  // namespace seer::nn
