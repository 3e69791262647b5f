// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/prototypes.hpp"

#include "seer/nn/product.hpp"

namespace seer::nn {

struct Prototypes::Pass final : nn::Pass {
  device::Tensor embeddings, scores;
  device::Tensor output(std::size_t) const override { return scores; }
  device::Tensor gradient() const override { return {}; }
};

Prototypes::Prototypes(std::int64_t count, std::int64_t dim, std::int64_t frozen_updates, ParameterTable& parameters)
    : count_(count), dim_(dim) {
  begins_.push_back(parameters.block_elems());
  weight_ = parameters.add("prototypes.weight", {count, dim}, Init::uniform_fan, static_cast<double>(dim),
                           {.unit_rows = true, .frozen_updates = frozen_updates});
  begins_.push_back(parameters.block_elems());
}

std::unique_ptr<nn::Pass> Prototypes::make_pass(PassOptions) const {
  return std::make_unique<Pass>();
}

void Prototypes::forward(const Context& ctx, std::size_t, device::Tensor embeddings, nn::Pass& of,
                         device::Tensor scores) const {
  auto& pass = static_cast<Pass&>(of);
  pass.embeddings = embeddings;
  pass.scores = scores;
  product(ctx, embeddings.rows(), count_, dim_, embeddings.f32(), dnn::Transpose::no, ctx.at(weight_),
          dnn::Transpose::yes, scores.f32());
}

void Prototypes::backward(const Context& ctx, std::size_t, device::Tensor d_scores, nn::Pass& of,
                          device::Tensor d_embeddings) const {
  const auto& pass = static_cast<Pass&>(of);
  const auto rows = d_scores.rows();
  product(ctx, count_, dim_, rows, d_scores.f32(), dnn::Transpose::yes, pass.embeddings.f32(), dnn::Transpose::no,
          ctx.grad(weight_), dnn::Accumulate::yes);
  product(ctx, rows, dim_, count_, d_scores.f32(), dnn::Transpose::no, ctx.at(weight_), dnn::Transpose::no,
          d_embeddings.f32());
}

}  // namespace seer::nn
