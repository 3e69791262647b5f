// SPDX-License-Identifier: Apache-2.0
// ResNet's blocks (method.md 1.6): two or three convolutions, each followed by BatchNorm, with ReLU between them; then
// the sum with the shortcut, and ReLU. Forward and backward are explicit; everything between two convolutions is
// fused into as few passes over the activation as possible.
#pragma once

#include <array>
#include <string>

#include "seer/nn/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

class ResidualBlock {
 public:
  struct Shape {
    std::int64_t width_in = 0, width = 0, stride = 1;  ///< width: output channels
    /// Width and groups of the 3x3 convolution between two 1x1 ones. Width 0: two 3x3 convolutions instead.
    std::int64_t inner_width = 0, groups = 1;
    bool projected() const { return width_in != width || stride != 1; }
  };
  static constexpr std::size_t kMost = 3;  ///< convolutions in a block

  /// Activations kept from forward to backward. `x` belongs to the previous block.
  struct Saved {
    device::Tensor x;
    std::array<device::Loan, kMost> convolved, activated;
    device::Loan projection, out;
    std::array<BatchNormLayer::Saved, kMost> bn;
    BatchNormLayer::Saved bn_projection;
  };

  /// Registers `prefix`.conv1.weight, .bn1.* and so on, and .downsample.* for a projected shortcut.
  ResidualBlock(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, const Shape& shape);

  /// x: [n, h, w, width_in]; saved.out: [n, h', w', width]. Keeps only `out` if no backward pass follows.
  void forward(const Context& ctx, device::Tensor x, Saved& saved, Keep keep = Keep::all) const;
  /// Overwrites d_out. Frees the tensors of `saved` after their last use. Returns d_x.
  device::Loan backward(const Context& ctx, device::Loan d_out, Saved& saved) const;

 private:
  struct Layer {
    std::int64_t weight = 0;
    std::int64_t c_in = 0, c_out = 0, kernel = 1, stride = 1, groups = 1;
    BatchNormLayer bn;
    dnn::ConvShape at(device::Shape x) const;
  };
  Layer layer(ParameterTable& parameters, ParameterTable& buffers, const std::string& convolution,
              const std::string& norm, std::array<std::int64_t, 5> shape) const;
  /// The input of layer i.
  device::Tensor source(const Saved& saved, std::size_t i) const { return i == 0 ? saved.x : *saved.activated[i - 1]; }
  void convolve(const Context& ctx, Saved& saved) const;
  void activate(const Context& ctx, Saved& saved, std::size_t i) const;

  std::size_t count_ = 0;
  std::array<Layer, kMost> layers_;
  Layer projection_;
  bool projected_ = false;
};

}  // namespace seer::nn
