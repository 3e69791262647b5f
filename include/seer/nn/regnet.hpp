// SPDX-License-Identifier: Apache-2.0
// The RegNetY trunk (spec 1.2): stem, stages of blocks, global average pool.
#pragma once

#include <vector>

#include "seer/nn/architecture.hpp"
#include "seer/nn/block.hpp"

namespace seer::nn {

class RegNet {
 public:
  /// What one forward pass keeps for its backward pass: one per crop resolution.
  struct Pass {
    device::Tensor images;
    device::Loan stem, stem_out;
    BatchNormLayer::Saved bn_stem;
    std::vector<Block::Saved> blocks;
  };

  RegNet(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers);

  /// images: [n, h, w, 3]; features: [n, features()], written. In eval mode `pass` is left empty.
  void forward(const Context& ctx, device::Tensor images, Pass& pass, device::Tensor features) const;
  /// Gradients of the parameters are accumulated; `d_images`, where given, receives the gradient of the images.
  void backward(const Context& ctx, device::Tensor d_features, Pass& pass,
                const device::Tensor* d_images = nullptr) const;

  std::int64_t features() const { return features_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  dnn::ConvShape conv_stem(device::Shape images) const;
  std::int64_t features_ = 0, weight_stem_ = 0;
  BatchNormLayer bn_stem_;
  std::vector<Block> blocks_;
};

}  // namespace seer::nn
