// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/regnet.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "seer/kernels/activation.hpp"

namespace seer::nn {

struct RegNet::Pass final : nn::Pass {
  device::Tensor images;  ///< in the type of the activations: the caller's, or `rounded`
  device::Loan rounded;
  device::Loan stem, stem_out;
  BatchNormLayer::Saved bn_stem;
  std::vector<Block::Saved> blocks;
  device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next
  PassOptions options;

  device::Loan& out(std::size_t segment) { return segment == 0 ? stem_out : blocks[segment - 1].out; }
  device::Tensor output(std::size_t segment) const override {
    return segment == 0 ? *stem_out : *blocks.at(segment - 1).out;
  }
  device::Tensor gradient() const override { return *d_out; }
  bool stays(std::size_t segment) const {
    return std::find(options.outputs.begin(), options.outputs.end(), segment) != options.outputs.end();
  }
  /// Gives every tensor back. The memory of the list stays.
  void clear() {
    images = {};
    for (auto* loan : {&rounded, &stem, &stem_out, &d_out}) loan->release();
    bn_stem = {};
    for (auto& block : blocks) block = {};
  }
  /// But the outputs that were asked for.
  void clear_eval() {
    std::vector<device::Loan> kept;
    for (const auto segment : options.outputs) kept.push_back(std::move(out(segment)));
    clear();
    for (std::size_t i = 0; i < kept.size(); ++i) out(options.outputs[i]) = std::move(kept[i]);
  }
};

std::unique_ptr<nn::Pass> RegNet::make_pass(PassOptions options) const {
  auto pass = std::make_unique<Pass>();
  pass->options = std::move(options);
  return pass;
}

RegNet::RegNet(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers)
    : width_(architecture.features()) {
  begins_.push_back(parameters.block_elems());
  weight_stem_ =
      parameters.add("stem.0.weight", {kStemWidth, 3, 3, 3}, Init::conv_normal, static_cast<double>(9 * kStemWidth));
  bn_stem_ = BatchNormLayer(parameters, buffers, "stem.1", kStemWidth);
  taps_.push_back({"stem", 0});
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
    taps_.push_back({fmt::format("res{}", s + 2), blocks_.size()});
  }
  begins_.push_back(parameters.block_elems());
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

void RegNet::stem_backward(const Context& ctx, Pass& pass, device::Tensor d_images) const {
  auto queue = ctx.queue;
  if (!pass.stem) {
    Context again = ctx;
    again.mode = Mode::replay;
    stem_forward(again, pass);
  }
  const auto stem = conv_stem(pass.images.shape);
  const auto& d = *pass.d_out;
  bn_stem_.backward(ctx, pass.bn_stem, *pass.stem, {.d_y = d, .relu = kernels::Relu::yes}, d);
  ctx.dnn->conv_backward_weights(queue, stem, pass.images, d, ctx.grad(weight_stem_), dnn::Accumulate::yes);
  if (!d_images) return;
  const auto d_rounded = ctx.activation(d_images.shape);
  ctx.dnn->conv_backward_data(queue, stem, d, ctx.weights(weight_stem_), *d_rounded);
  kernels::cast(queue, *d_rounded, d_images);
}

void RegNet::forward(const Context& ctx, std::size_t segment, device::Tensor images, nn::Pass& of,
                     device::Tensor features) const {
  auto& pass = static_cast<Pass&>(of);
  auto queue = ctx.queue;
  const auto& choices = pass.options.keep;
  const auto keep = choices.empty() ? Keep::all : choices.at(segment);
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
  auto& below = pass.out(segment - 1);
  blocks_[segment - 1].forward(ctx, *below, pass.blocks[segment - 1], keep);
  if (ctx.mode == Mode::eval && !pass.stays(segment - 1)) below.release();
  if (segment + 1 < segments()) return;
  kernels::global_average_pool(queue, *pass.out(segment), features);
  if (ctx.mode == Mode::eval) pass.clear_eval();
}

void RegNet::backward(const Context& ctx, std::size_t segment, device::Tensor d_features, nn::Pass& of,
                      device::Tensor d_images) const {
  auto& pass = static_cast<Pass&>(of);
  auto queue = ctx.queue;
  if (segment + 1 == segments()) {
    pass.d_out = ctx.activation(pass.out(segment)->shape);
    kernels::global_average_pool_backward(queue, d_features, *pass.d_out);
  }
  if (segment > 0) {
    pass.d_out = blocks_[segment - 1].backward(ctx, std::move(pass.d_out), pass.blocks[segment - 1]);
    return;
  }
  stem_backward(ctx, pass, d_images);
  pass.clear();
}

}  // namespace seer::nn
