// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/batchnorm.hpp"

#include <array>

namespace seer::nn {

device::Loan sums_scratch(const Context& ctx, std::int64_t count) {
  return ctx.pool->bytes(static_cast<std::size_t>(count) * sizeof(double));
}

BatchNormLayer::BatchNormLayer(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix,
                               std::int64_t channels)
    : channels_(channels),
      gamma_(parameters.add(prefix + ".weight", {channels}, Init::one)),
      beta_(parameters.add(prefix + ".bias", {channels}, Init::zero)),
      running_mean_(buffers.add(prefix + ".running_mean", {channels}, Init::zero)),
      running_var_(buffers.add(prefix + ".running_var", {channels}, Init::one)) {}

kernels::BatchNorm BatchNormLayer::view(const Context& ctx, const Saved& saved) const {
  return {saved.mean(), saved.inv_std(), ctx.at(gamma_), ctx.at(beta_)};
}

void BatchNormLayer::compute_statistics(const Context& ctx, std::span<const Part> parts) {
  if (ctx.mode == Mode::replay) return;  // uses the statistics of the first run
  auto queue = ctx.queue;
  std::int64_t count = 0;
  for (const auto& part : parts) {
    const auto c = part.layer->channels_;
    part.saved->channels = c;
    part.saved->statistics = ctx.pool->tensor({2, 1, 1, c});
    count += 1 + 2 * c;
  }
  if (ctx.mode == Mode::eval) {
    for (const auto& part : parts) {
      kernels::batchnorm_from_running(queue, part.layer->channels_, ctx.buffers + part.layer->running_mean_,
                                      ctx.buffers + part.layer->running_var_, kEpsilon, part.saved->mean(),
                                      part.saved->inv_std());
    }
    return;
  }
  const auto scratch = sums_scratch(ctx, count);
  double* sums = doubles(scratch);
  for (const auto& part : parts) {
    kernels::batchnorm_sums(queue, part.x, sums);
    sums += 1 + 2 * part.layer->channels_;
  }
  if (ctx.group != nullptr) ctx.group->sum(queue, doubles(scratch), static_cast<std::size_t>(count));
  sums = doubles(scratch);
  const std::int64_t ranks = ctx.group != nullptr ? ctx.group->size() : 1;
  for (const auto& part : parts) {
    const auto& layer = *part.layer;
    part.saved->rows = static_cast<double>(part.x.rows() * ranks);
    kernels::batchnorm_statistics(queue, layer.channels_, sums, kEpsilon, part.saved->mean(), part.saved->inv_std(),
                                  kMomentum, ctx.buffers + layer.running_mean_, ctx.buffers + layer.running_var_);
    sums += 1 + 2 * layer.channels_;
  }
}

void BatchNormLayer::reduce_backward(const Context& ctx, std::span<const BackwardPart> parts) {
  auto queue = ctx.queue;
  std::size_t count = 0;
  for (const auto& part : parts) {
    const auto& layer = *part.layer;
    kernels::batchnorm_parameter_gradients(queue, layer.channels_, part.sums, part.saved->inv_std(),
                                           ctx.grad(layer.gamma_), ctx.grad(layer.beta_));
    count += static_cast<std::size_t>(2 * layer.channels_);
  }
  if (ctx.group != nullptr) ctx.group->sum(queue, parts.front().sums, count);
}

void BatchNormLayer::backward(const Context& ctx, const Saved& saved, device::Tensor x,
                              const kernels::BatchNormGradient& g, device::Tensor d_x) const {
  auto queue = ctx.queue;
  const auto bn = view(ctx, saved);
  const auto scratch = sums_scratch(ctx, 2 * channels_);
  kernels::batchnorm_backward_sums(queue, x, bn, g, doubles(scratch));
  reduce_backward(ctx, std::array{BackwardPart{this, &saved, doubles(scratch)}});
  kernels::batchnorm_backward_apply(queue, x, bn, g, doubles(scratch), saved.rows, d_x);
}

}  // namespace seer::nn
