// SPDX-License-Identifier: Apache-2.0
// A trunk of a stem, blocks, and the mean over the image at the end.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "seer/kernels/activation.hpp"
#include "seer/kernels/pool.hpp"
#include "seer/nn/block.hpp"

namespace seer::nn {

/// The start of a trunk: convolution, BatchNorm, ReLU and, in ResNet, max pooling.
class Stem {
 public:
  /// Kept from the forward to the backward pass.
  struct Saved {
    device::Tensor images;  ///< in the type of the activations: the caller's tensor or `rounded`
    device::Loan rounded, convolved, out;
    BatchNormLayer::Saved bn;
    device::Shape unpooled;  ///< shape of the pooling's input
    device::Loan places;     ///< of the maxima
  };

  Stem() = default;
  Stem(const ConvNorm& layer, bool pools) : layer_(layer), pools_(pools) {}

  /// images: [n, h, w, 3], float; must stay until the backward pass; saved.out: [n, h', w', width].
  void forward(const Context& ctx, device::Tensor images, Saved& s, Keep keep) const {
    s.images = images;
    if (images.dtype != ctx.compute) {
      s.rounded = ctx.activation(images.shape);
      kernels::cast(ctx.queue, images, *s.rounded);
      s.images = *s.rounded;
    }
    convolve(ctx, s);
    s.out = ctx.activation(s.convolved->shape);
    kernels::batchnorm_apply(ctx.queue, *s.convolved, layer_.bn().view(ctx, s.bn), kernels::Relu::yes, *s.out);
    if (keep == Keep::input || !ctx.keeps()) s.convolved.release();
    if (!pools_) return;
    const auto unpooled = std::move(s.out);
    s.unpooled = unpooled->shape;
    const auto& [n, h, w, c] = s.unpooled;
    s.out = ctx.activation({n, kernels::max_pooled(h), kernels::max_pooled(w), c});
    s.places = ctx.pool->bytes(static_cast<std::size_t>(s.out->elems()));
    kernels::max_pool(ctx.queue, *unpooled, *s.out, static_cast<std::uint8_t*>(s.places->data));
    if (!ctx.keeps()) s.places.release();
  }

  /// Overwrites d_out. Writes d_images, if that has memory.
  void backward(const Context& ctx, device::Loan d_out, Saved& s, device::Tensor d_images) const {
    if (pools_) {
      auto d_unpooled = ctx.activation(s.unpooled);
      kernels::max_pool_backward(ctx.queue, *d_out, static_cast<const std::uint8_t*>(s.places->data), *d_unpooled);
      d_out = std::move(d_unpooled);
    }
    if (!s.convolved) convolve(ctx.replay(), s);
    const auto& d = *d_out;
    layer_.bn().backward(ctx, s.bn, *s.convolved, {.d_y = d, .relu = kernels::Relu::yes}, d);
    layer_.backward_weights(ctx, s.images, d);
    if (!d_images) return;
    const auto d_rounded = layer_.backward_data(ctx, d, d_images.shape);
    kernels::cast(ctx.queue, *d_rounded, d_images);
  }

 private:
  /// Gives the same bits when run again in replay mode.
  void convolve(const Context& ctx, Saved& s) const {
    s.convolved = layer_.convolve(ctx, s.images);
    BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layer_.bn(), &s.bn, *s.convolved}});
  }

  ConvNorm layer_;
  bool pools_ = false;
};

/// The stem and every block are its segments.
class ConvTrunk final : public Chain {
 public:
  // Build it in this order, in which torchvision registers the tensors. Stem and blocks are registered in `parameters`.
  explicit ConvTrunk(const ParameterTable& parameters) { end_segment(parameters); }
  void set_stem(const ParameterTable& parameters, const Stem& stem) {
    stem_ = stem;
    taps_.push_back({"stem", 0});
    end_segment(parameters);
  }
  void add_block(const ParameterTable& parameters, const Block& block) {
    blocks_.push_back(block);
    end_segment(parameters);
  }
  /// Ends a stage, "res2" to "res5", after the block added last.
  void end_stage(std::int64_t width) {
    taps_.push_back({"res" + std::to_string(taps_.size() + 1), blocks_.size()});
    width_ = width;
  }

  std::vector<Tap> taps() const override { return taps_; }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options) const override {
    auto pass = std::make_unique<Pass>();
    pass->options = std::move(options);
    return pass;
  }

  void forward(const Context& ctx, std::size_t segment, device::Tensor images, nn::Pass& of,
               device::Tensor features) const override {
    auto& pass = static_cast<Pass&>(of);
    const auto& choices = pass.options.keep;
    const auto keep = choices.empty() ? Keep::all : choices.at(segment);
    if (segment == 0) {
      pass.blocks.resize(blocks_.size());
      stem_.forward(ctx, images, pass.stem, keep);
      return;
    }
    auto& below = pass.out(segment - 1);
    blocks_[segment - 1].forward(ctx, *below, pass.blocks[segment - 1], keep);
    if (!ctx.keeps() && !pass.stays(segment - 1)) below.release();
    if (segment + 1 < segments()) return;
    kernels::global_average_pool(ctx.queue, *pass.out(segment), features);
    if (!ctx.keeps()) pass.clear_eval();
  }

  void backward(const Context& ctx, std::size_t segment, device::Tensor d_features, nn::Pass& of,
                device::Tensor d_images) const override {
    auto& pass = static_cast<Pass&>(of);
    if (segment + 1 == segments()) {
      pass.d_out = ctx.activation(pass.out(segment)->shape);
      kernels::global_average_pool_backward(ctx.queue, d_features, *pass.d_out);
    }
    if (segment > 0) {
      pass.d_out = blocks_[segment - 1].backward(ctx, std::move(pass.d_out), pass.blocks[segment - 1]);
      return;
    }
    stem_.backward(ctx, std::move(pass.d_out), pass.stem, d_images);
    pass.clear();
  }

 private:
  struct Pass final : nn::Pass {
    Stem::Saved stem;
    std::vector<Block::Saved> blocks;
    device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next
    PassOptions options;

    device::Loan& out(std::size_t segment) { return segment == 0 ? stem.out : blocks[segment - 1].out; }
    device::Tensor output(std::size_t segment) const override {
      return segment == 0 ? *stem.out : *blocks.at(segment - 1).out;
    }
    device::Tensor gradient() const override { return *d_out; }
    bool stays(std::size_t segment) const {
      return std::ranges::find(options.outputs, segment) != options.outputs.end();
    }
    /// Returns every tensor to the pool; keeps the memory of the list.
    void clear() override {
      d_out.release();
      stem = {};
      for (auto& block : blocks) block = {};
    }
    /// The same, but keeps the outputs in PassOptions::outputs.
    void clear_eval() {
      std::vector<device::Loan> kept;
      for (const auto segment : options.outputs) kept.push_back(std::move(out(segment)));
      clear();
      for (std::size_t i = 0; i < kept.size(); ++i) out(options.outputs[i]) = std::move(kept[i]);
    }
  };

  std::vector<Tap> taps_;
  Stem stem_;
  std::vector<Block> blocks_;
};

}  // namespace seer::nn
