// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/heads.hpp"

#include <fmt/format.h>

#include <array>

#include "seer/base/error.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/layers.hpp"
#include "seer/nn/model.hpp"

namespace seer::nn {
namespace {

class Projector final : public Chain {
 public:
  Projector(const ProjectorOptions& options, std::int64_t features, ParameterTable& parameters, ParameterTable& buffers)
      : batchnorm_(options.batchnorm), unit_rows_(options.unit_rows) {
    const auto& dims = options.dims;
    if (dims.size() < 2 || dims.front() != features) {
      throw Error(
          ExitCode::input,
          fmt::format("{}.dims = [{}], but its input has {} features", options.name, fmt::join(dims, ", "), features),
          fmt::format("set {}.dims = [{}, ...] with at least two entries", options.name, features))
          .as_agreed();
    }
    for (std::size_t i = 0; i + 1 < dims.size(); ++i) {
      const bool classifies = i + 2 == dims.size() && !options.last.empty();
      const std::string name = classifies ? options.last : fmt::format("{}.{}", options.name, i);
      const auto in = dims[i], out = dims[i + 1];
      const double fan_in = static_cast<double>(in);
      auto& layer = layers_.emplace_back();
      end_segment(parameters);
      layer.linear = {in, out, parameters.add(name + ".weight", {out, in}, Init::uniform_fan, fan_in),
                      parameters.add(name + ".bias", {out}, Init::uniform_fan, fan_in)};
      if (batchnorm_ && i + 2 < dims.size()) layer.bn = BatchNormLayer(parameters, buffers, name + ".norm", out);
    }
    end_segment(parameters);
    width_ = dims.back();
  }

  std::unique_ptr<nn::Pass> make_pass(PassOptions) const override {
    return std::make_unique<Pass>();  // no options: recomputes nothing and keeps all outputs
  }

  void forward(const Context& ctx, std::size_t i, device::Tensor features, nn::Pass& of,
               device::Tensor embeddings) const override {
    auto& pass = static_cast<Pass&>(of);
    if (i == 0) {
      pass.features = features;
      pass.embeddings = embeddings;
      pass.layers.resize(layers_.size());
    }
    const auto& layer = layers_[i];
    auto& kept = pass.layers[i];
    const auto x = pass.input(i);
    const auto rows = x.rows();
    const bool last = i + 1 == layers_.size();
    const bool normalised = batchnorm_ && !last;
    const bool plain = last && !unit_rows_;
    if (!plain) kept.out = ctx.pool->tensor({rows, 1, 1, layer.linear.out});
    if (normalised) kept.linear = ctx.pool->tensor(kept.out->shape);
    const auto y = plain ? embeddings : normalised ? *kept.linear : *kept.out;
    layer.linear.forward(ctx, x, y);
    if (normalised) {
      BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layer.bn, &kept.bn, *kept.linear}});
      kernels::batchnorm_apply(ctx.queue, *kept.linear, layer.bn.view(ctx, kept.bn), kernels::Relu::yes, *kept.out);
    } else if (!last) {
      kernels::relu(ctx.queue, *kept.out);
    } else if (!plain) {
      pass.norms = ctx.pool->tensor({rows, 1, 1, 1});
      kernels::l2_normalize(ctx.queue, *kept.out, embeddings, pass.norms->f32());
    }
    if (last && !ctx.keeps()) pass.clear();
  }

  void backward(const Context& ctx, std::size_t i, device::Tensor d_embeddings, nn::Pass& of,
                device::Tensor d_features) const override {
    auto& pass = static_cast<Pass&>(of);
    const auto& layer = layers_[i];
    auto& kept = pass.layers[i];
    const bool last = i + 1 == layers_.size();
    if (last) pass.d_out = ctx.pool->tensor(d_embeddings.shape);
    const auto d = std::move(pass.d_out);
    if (last && !unit_rows_)
      kernels::copy(ctx.queue, d_embeddings, *d);
    else if (last)
      kernels::l2_normalize_backward(ctx.queue, pass.embeddings, pass.norms->f32(), d_embeddings, *d);
    else if (batchnorm_)
      layer.bn.backward(ctx, kept.bn, *kept.linear, {.d_y = *d, .relu = kernels::Relu::yes}, *d);
    else
      kernels::relu_backward(ctx.queue, *kept.out, *d);
    layer.linear.backward_weights(ctx, pass.input(i), *d);
    if (i > 0) pass.d_out = ctx.pool->tensor({d->rows(), 1, 1, layer.linear.in});
    layer.linear.backward_data(ctx, *d, i > 0 ? *pass.d_out : d_features);
    kept = {};
    if (i == 0) pass.clear();
  }

 private:
  struct Pass final : nn::Pass {
    struct Layer {
      device::Loan linear;  ///< before BatchNorm and ReLU (kept only with BatchNorm)
      device::Loan out;     ///< after BatchNorm and ReLU
      BatchNormLayer::Saved bn;
    };
    device::Tensor features, embeddings;
    std::vector<Layer> layers;
    device::Loan norms;  ///< norms of the output rows before normalisation
    device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next

    device::Tensor input(std::size_t segment) const { return segment == 0 ? features : *layers[segment - 1].out; }
    device::Tensor output(std::size_t segment) const override {
      return segment + 1 == layers.size() ? embeddings : *layers.at(segment).out;
    }
    device::Tensor gradient() const override { return *d_out; }
    /// Returns every tensor to the pool; keeps the memory of the list.
    void clear() override {
      features = embeddings = {};
      norms.release();
      d_out.release();
      for (auto& layer : layers) layer = {};
    }
  };
  struct Layer {
    Linear linear;
    BatchNormLayer bn;
  };
  bool batchnorm_, unit_rows_;
  std::vector<Layer> layers_;
};

/// SwAV's prototypes: a linear layer without bias whose weight rows have length one. One segment. Input: embeddings
/// [rows, dim]; output: scores [rows, count]. Registers prototypes.weight [count, dim], which does not change in the
/// first `frozen_updates` updates.
class Prototypes final : public Chain {
 public:
  Prototypes(std::int64_t count, std::int64_t dim, std::int64_t frozen_updates, ParameterTable& parameters) {
    width_ = count;
    end_segment(parameters);
    linear_ = {dim, count,
               parameters.add("prototypes.weight", {count, dim}, Init::uniform_fan, static_cast<double>(dim),
                              {.unit_rows = true, .frozen_updates = frozen_updates})};
    end_segment(parameters);
  }

  std::unique_ptr<nn::Pass> make_pass(PassOptions) const override { return std::make_unique<Pass>(); }

  void forward(const Context& ctx, std::size_t, device::Tensor embeddings, nn::Pass& of,
               device::Tensor scores) const override {
    auto& pass = static_cast<Pass&>(of);
    pass.embeddings = embeddings;
    pass.scores = scores;
    linear_.forward(ctx, embeddings, scores);
  }

  void backward(const Context& ctx, std::size_t, device::Tensor d_scores, nn::Pass& of,
                device::Tensor d_embeddings) const override {
    linear_.backward_weights(ctx, static_cast<Pass&>(of).embeddings, d_scores);
    linear_.backward_data(ctx, d_scores, d_embeddings);
  }

 private:
  struct Pass final : nn::Pass {
    device::Tensor embeddings, scores;
    device::Tensor output(std::size_t) const override { return scores; }
    device::Tensor gradient() const override { return {}; }
  };
  Linear linear_;
};

}  // namespace

std::unique_ptr<Chain> make_projector(const ProjectorOptions& options, std::int64_t features,
                                      ParameterTable& parameters, ParameterTable& buffers) {
  return std::make_unique<Projector>(options, features, parameters, buffers);
}

MakeHeads projection_heads(const config::Head& head, std::int64_t frozen_updates) {
  return [=](std::int64_t features, ParameterTable& parameters, ParameterTable& buffers) {
    Heads heads;
    if (head.dims.empty()) return heads;
    heads.push_back(make_projector({.dims = head.dims, .batchnorm = head.batchnorm}, features, parameters, buffers));
    if (head.prototypes > 0)
      heads.push_back(std::make_unique<Prototypes>(head.prototypes, head.dims.back(), frozen_updates, parameters));
    return heads;
  };
}

}  // namespace seer::nn
