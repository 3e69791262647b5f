// SPDX-License-Identifier: Apache-2.0
// A trunk of a stem, blocks, and the mean over the image at the end. The stem and every block are its segments.
//
// Stem and Block have a type `Saved`, which holds the output `out` and the tensors for the backward pass, and
//   Stem::forward(ctx, images, saved, keep), Stem::backward(ctx, loan of d_out, saved, d_images);
//   Block::forward(ctx, x, saved, keep), Block::backward(ctx, loan of d_out, saved), which returns the loan of d_x.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "seer/kernels/activation.hpp"
#include "seer/nn/chain.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::nn {

template <class Stem, class Block>
class ConvTrunk : public Chain {
 public:
  const std::vector<std::int64_t>& segment_begins() const override { return begins_; }
  std::int64_t width() const override { return width_; }
  std::vector<Tap> taps() const override { return taps_; }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options) const override {
    auto pass = std::make_unique<Pass>();
    pass->options = std::move(options);
    return pass;
  }

  void forward(const Context& ctx, std::size_t segment, device::Tensor images, nn::Pass& of,
               device::Tensor features) const override {
    auto& pass = static_cast<Pass&>(of);
    auto queue = ctx.queue;
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
    kernels::global_average_pool(queue, *pass.out(segment), features);
    if (!ctx.keeps()) pass.clear_eval();
  }

  void backward(const Context& ctx, std::size_t segment, device::Tensor d_features, nn::Pass& of,
                device::Tensor d_images) const override {
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
    stem_.backward(ctx, std::move(pass.d_out), pass.stem, d_images);
    pass.clear();
  }

 protected:
  // Call these in the order in which torchvision registers the tensors.
  void set_stem(const ParameterTable& before, const auto& make) {
    begins_.push_back(before.block_elems());
    stem_ = make();
    taps_.push_back({"stem", 0});
    begins_.push_back(before.block_elems());
  }
  template <class... Args>
  void add_block(ParameterTable& parameters, ParameterTable& buffers, Args&&... args) {
    blocks_.emplace_back(parameters, buffers, std::forward<Args>(args)...);
    begins_.push_back(parameters.block_elems());
  }
  /// Ends a stage, "res2" to "res5", after the block added last.
  void end_stage(std::int64_t width) {
    taps_.push_back({"res" + std::to_string(taps_.size() + 1), blocks_.size()});
    width_ = width;
  }

 private:
  struct Pass final : nn::Pass {
    typename Stem::Saved stem;
    std::vector<typename Block::Saved> blocks;
    device::Loan d_out;  ///< gradient of the output of the segment whose backward pass comes next
    PassOptions options;

    device::Loan& out(std::size_t segment) { return segment == 0 ? stem.out : blocks[segment - 1].out; }
    device::Tensor output(std::size_t segment) const override {
      return segment == 0 ? *stem.out : *blocks.at(segment - 1).out;
    }
    device::Tensor gradient() const override { return *d_out; }
    bool stays(std::size_t segment) const {
      return std::find(options.outputs.begin(), options.outputs.end(), segment) != options.outputs.end();
    }
    /// Returns every tensor to the pool; keeps the memory of the list.
    void clear() {
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

  std::vector<std::int64_t> begins_;
  std::vector<Tap> taps_;
  std::int64_t width_ = 0;
  Stem stem_;
  std::vector<Block> blocks_;
};

}  // namespace seer::nn
