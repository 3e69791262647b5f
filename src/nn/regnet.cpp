// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/regnet.hpp"

#include <fmt/format.h>

#include <array>

#include "seer/kernels/activation.hpp"

namespace seer::nn {

RegNet::RegNet(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers)
    : features_(architecture.features()) {
  begins_.push_back(parameters.block_elems());
  weight_stem_ =
      parameters.add("stem.0.weight", {kStemWidth, 3, 3, 3}, Init::conv_normal, static_cast<double>(9 * kStemWidth));
  bn_stem_ = BatchNormLayer(parameters, buffers, "stem.1", kStemWidth);
  std::int64_t width_in = kStemWidth;
  for (std::size_t s = 0; s < architecture.stages.size(); ++s) {
    const auto& stage = architecture.stages[s];
    for (std::int64_t i = 0; i < stage.depth; ++i) {
      const BlockShape shape{.width_in = width_in,
                             .width = stage.width,
                             .stride = i == 0 ? 2 : 1,
                             .group_width = stage.group_width,
                             .squeeze = squeeze_width(width_in)};
      begins_.push_back(parameters.block_elems());
      blocks_.emplace_back(parameters, buffers, fmt::format("trunk_output.block{0}.block{0}-{1}", s + 1, i), shape);
      width_in = stage.width;
    }
  }
  begins_.push_back(parameters.block_elems());
}

void RegNet::Pass::clear() {
  images = {};
  for (auto* loan : {&rounded, &stem, &stem_out, &gradient}) loan->release();
  bn_stem = {};
  for (auto& block : blocks) block = {};
}

dnn::ConvShape RegNet::conv_stem(device::Shape x) const {
  return {.n = x.n, .h = x.h, .w = x.w, .c_in = 3, .c_out = kStemWidth, .kernel = 3, .stride = 2, .pad = 1};
}

void RegNet::stem_forward(const Context& ctx, Pass& pass) const {
  auto queue = ctx.queue;
  const auto stem = conv_stem(pass.images.shape);
  pass.stem = ctx.activation({stem.n, stem.out_h(), stem.out_w(), stem.c_out});
  ctx.dnn->conv_forward(queue, stem, pass.images, ctx.weights(weight_stem_), *pass.stem);
  BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&bn_stem_, &pass.bn_stem, *pass.stem}});
}

void RegNet::stem_backward(const Context& ctx, Pass& pass, const device::Tensor* d_images) const {
  auto queue = ctx.queue;
  if (!pass.stem) {
    Context again = ctx;
    again.mode = Mode::replay;
    stem_forward(again, pass);
  }
  const auto stem = conv_stem(pass.images.shape);
  const auto& d = *pass.gradient;
  bn_stem_.backward(ctx, pass.bn_stem, *pass.stem, {.d_y = d, .relu = kernels::Relu::yes}, d);
  ctx.dnn->conv_backward_weights(queue, stem, pass.images, d, ctx.grad(weight_stem_), dnn::Accumulate::yes);
  if (d_images == nullptr) return;
  const auto d_rounded = ctx.activation(d_images->shape);
  ctx.dnn->conv_backward_data(queue, stem, d, ctx.weights(weight_stem_), *d_rounded);
  kernels::cast(queue, *d_rounded, *d_images);
}

void RegNet::forward_segment(const Context& ctx, std::size_t segment, device::Tensor images, Pass& pass,
                             device::Tensor features) const {
  auto queue = ctx.queue;
  const auto keep = pass.keep.empty() ? Keep::all : pass.keep.at(segment);
  if (segment == 0) {
    pass.images = images;
    if (images.dtype != ctx.compute) {
      pass.rounded = ctx.activation(images.shape);
      kernels::cast(queue, images, *pass.rounded);
      pass.images = *pass.rounded;
    }
    pass.blocks.resize(blocks_.size());
    stem_forward(ctx, pass);
    pass.stem_out = ctx.activation(pass.stem->shape);
    kernels::batchnorm_apply(queue, *pass.stem, bn_stem_.view(ctx, pass.bn_stem), kernels::Relu::yes, *pass.stem_out);
    if (keep == Keep::input || ctx.mode == Mode::eval) pass.stem.release();
    return;
  }
  const std::size_t i = segment - 1;
  auto& below = i == 0 ? pass.stem_out : pass.blocks[i - 1].out;
  blocks_[i].forward(ctx, *below, pass.blocks[i], keep);
  if (ctx.mode == Mode::eval) below.release();
  if (segment + 1 < segments()) return;
  kernels::global_average_pool(queue, *pass.blocks[i].out, features);
  if (ctx.mode == Mode::eval) pass.clear();
}

void RegNet::backward_segment(const Context& ctx, std::size_t segment, device::Tensor d_features, Pass& pass,
                              const device::Tensor* d_images) const {
  auto queue = ctx.queue;
  if (segment + 1 == segments()) {
    pass.gradient = ctx.activation(pass.blocks.back().out->shape);
    kernels::global_average_pool_backward(queue, d_features, *pass.gradient);
  }
  if (segment > 0) {
    pass.gradient = blocks_[segment - 1].backward(ctx, std::move(pass.gradient), pass.blocks[segment - 1]);
    return;
  }
  stem_backward(ctx, pass, d_images);
  pass.clear();
}

void RegNet::forward(const Context& ctx, device::Tensor images, Pass& pass, device::Tensor features) const {
  for (std::size_t s = 0; s < segments(); ++s) forward_segment(ctx, s, images, pass, features);
}

void RegNet::backward(const Context& ctx, device::Tensor d_features, Pass& pass, const device::Tensor* d_images) const {
  for (std::size_t s = segments(); s-- > 0;) backward_segment(ctx, s, d_features, pass, d_images);
}

}  // namespace seer::nn
