// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/projector.hpp"

#include <fmt/format.h>

#include <array>

#include "seer/base/error.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/product.hpp"

namespace seer::nn {

struct Projector::Pass final : nn::Pass {
  device::Tensor features, embeddings;
  struct Layer {
    device::Loan linear;  ///< before BatchNorm and ReLU (kept only with BatchNorm)
    device::Loan out;     ///< after BatchNorm and ReLU
    BatchNormLayer::Saved bn;
  };
  std::vector<Layer> layers;
  device::Loan norms;  ///< norms of the output rows before normalisation
  device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next

  device::Tensor output(std::size_t segment) const override {
    return segment + 1 == layers.size() ? embeddings : *layers.at(segment).out;
  }
  device::Tensor gradient() const override { return *d_out; }
  /// Returns every tensor to the pool; keeps the memory of the list.
  void clear() {
    features = embeddings = {};
    norms.release();
    d_out.release();
    for (auto& layer : layers) layer = {};
  }
};

Projector::Projector(const Options& options, std::int64_t features, ParameterTable& parameters, ParameterTable& buffers)
    : dims_(options.dims), batchnorm_(options.batchnorm), rows_(options.rows) {
  if (dims_.size() < 2 || dims_.front() != features) {
    throw Error(ExitCode::input,
                fmt::format("{}.dims = [{}], but what it works on has {} features", options.name,
                            fmt::join(dims_, ", "), features),
                fmt::format("set {}.dims = [{}, ...] with at least two entries", options.name, features))
        .as_agreed();
  }
  for (std::size_t i = 0; i + 1 < dims_.size(); ++i) {
    const std::string name = fmt::format("{}.{}", options.name, i);
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
}

std::unique_ptr<nn::Pass> Projector::make_pass(PassOptions) const {
  return std::make_unique<Pass>();  // no options: recomputes nothing and keeps all outputs
}

void Projector::forward(const Context& ctx, std::size_t i, device::Tensor features, nn::Pass& of,
                        device::Tensor embeddings) const {
  auto& pass = static_cast<Pass&>(of);
  if (i == 0) {
    pass.features = features;
    pass.embeddings = embeddings;
    pass.layers.resize(layers_.size());
  }
  auto queue = ctx.queue;
  const auto& layer = layers_[i];
  auto& kept = pass.layers[i];
  const device::Tensor x = i == 0 ? pass.features : *pass.layers[i - 1].out;
  const auto rows = x.rows();
  const bool last = i + 1 == layers_.size();
  const bool normalised = batchnorm_ && !last;
  const bool plain = last && rows_ == Rows::as_they_are;
  if (!plain) kept.out = ctx.pool->tensor({rows, 1, 1, dims_[i + 1]});
  if (normalised) kept.linear = ctx.pool->tensor(kept.out->shape);
  product(ctx, rows, dims_[i + 1], dims_[i], x.f32(), dnn::Transpose::no, ctx.at(layer.weight), dnn::Transpose::yes,
          plain        ? embeddings.f32()
          : normalised ? kept.linear->f32()
                       : kept.out->f32(),
          dnn::Accumulate::no, ctx.at(layer.bias));
  if (normalised) {
    BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layer.bn, &kept.bn, *kept.linear}});
    kernels::batchnorm_apply(queue, *kept.linear, layer.bn.view(ctx, kept.bn), kernels::Relu::yes, *kept.out);
  } else if (!last) {
    kernels::relu(queue, *kept.out);
  } else if (!plain) {
    pass.norms = ctx.pool->tensor({rows, 1, 1, 1});
    kernels::l2_normalize(queue, *kept.out, embeddings, pass.norms->f32());
  }
  if (last && !ctx.keeps()) pass.clear();
}

void Projector::backward(const Context& ctx, std::size_t i, device::Tensor d_embeddings, nn::Pass& of,
                         device::Tensor d_features) const {
  auto& pass = static_cast<Pass&>(of);
  auto queue = ctx.queue;
  const auto& layer = layers_[i];
  auto& kept = pass.layers[i];
  const bool last = i + 1 == layers_.size();
  if (last) pass.d_out = ctx.pool->tensor(d_embeddings.shape);
  const auto d = std::move(pass.d_out);
  const auto rows = d->rows();
  if (last && rows_ == Rows::as_they_are) {
    kernels::copy(queue, d_embeddings, *d);
  } else if (last) {
    kernels::l2_normalize_backward(queue, pass.embeddings, pass.norms->f32(), d_embeddings, *d);
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
  if (i == 0) pass.clear();
}

}  // namespace seer::nn
