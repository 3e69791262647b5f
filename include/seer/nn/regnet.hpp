// SPDX-License-Identifier: Apache-2.0
// The RegNetY trunk (method.md 1.2): stem, stages of blocks, global average pool. Its segments are the stem and every
// block.
#pragma once

#include <vector>

#include "seer/nn/architecture.hpp"
#include "seer/nn/block.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

class RegNet final : public Chain {
 public:
  RegNet(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers);

  const std::vector<std::int64_t>& segment_begins() const override { return begins_; }
  std::int64_t width() const override { return width_; }
  /// "stem", and "res2" to "res5" for the last block of each stage.
  std::vector<Tap> taps() const override { return taps_; }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options) const override;
  /// images: [n, h, w, 3], float; features: [n, width()]. In eval mode the pass ends without tensors but those that are
  /// to stay.
  void forward(const Context& ctx, std::size_t segment, device::Tensor images, nn::Pass& pass,
               device::Tensor features) const override;
  void backward(const Context& ctx, std::size_t segment, device::Tensor d_features, nn::Pass& pass,
                device::Tensor d_images) const override;

 private:
  struct Pass;
  dnn::ConvShape conv_stem(device::Shape images) const;
  void stem_forward(const Context& ctx, Pass& pass) const;
  void stem_backward(const Context& ctx, Pass& pass, device::Tensor d_images) const;
  std::vector<std::int64_t> begins_;
  std::vector<Tap> taps_;
  std::int64_t width_ = 0, weight_stem_ = 0;
  BatchNormLayer bn_stem_;
  std::vector<Block> blocks_;
};

}  // namespace seer::nn
