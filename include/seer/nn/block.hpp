// SPDX-License-Identifier: Apache-2.0
// The blocks of RegNetY (method.md 1.2) and ResNet (1.6): two or three convolutions, each followed by BatchNorm, with
// ReLU between them; then the sum with the shortcut, and ReLU. RegNetY scales the input of the last convolution by
// squeeze-excitation. Everything between two convolutions is fused into as few passes over memory as possible.
#pragma once

#include <array>
#include <string>

#include "seer/nn/layers.hpp"

namespace seer::nn {

/// gate[n, c] = sigmoid(W2 relu(W1 mean(relu(bn(x))) + b1) + b2), the mean over the image.
class SqueezeExcitation {
 public:
  struct Saved {
    device::Loan pooled, open, hidden, gate;  ///< open: sums that batchnorm_relu_pool keeps
  };

  SqueezeExcitation() = default;
  /// Registers `prefix`.fc1.* and .fc2.*. `squeezed`: width of the hidden layer.
  SqueezeExcitation(ParameterTable& parameters, const std::string& prefix, std::int64_t width, std::int64_t squeezed);

  void forward(const Context& ctx, device::Tensor x, const kernels::BatchNorm& bn, Saved& saved) const;
  /// `d_y`: gradient of the gated activation. Returns that which reaches relu(bn(x)) through the mean: [n, width].
  /// d_open: [2, n, width], see kernels::gate_backward.
  device::Loan backward(const Context& ctx, device::Tensor x, const kernels::BatchNorm& bn, device::Tensor d_y,
                        const Saved& saved, float* d_open) const;

 private:
  Linear squeeze_, excite_;
};

class Block {
 public:
  struct Shape {
    std::int64_t width_in = 0, width = 0, stride = 1;  ///< width: output channels
    /// Width and groups of the 3x3 convolution between two 1x1 ones. Width 0: two 3x3 convolutions instead.
    std::int64_t inner_width = 0, groups = 1;
    std::int64_t squeezed = 0;  ///< hidden width of RegNetY's squeeze-excitation; 0: a block of ResNet
  };

  /// Activations kept from forward to backward. `x` belongs to the previous block.
  struct Saved {
    device::Tensor x;
    /// Of each convolution: its output; the input of the next one.
    std::array<device::Loan, 3> convolved, activated;
    device::Loan projection, out;
    std::array<BatchNormLayer::Saved, 3> bn;
    BatchNormLayer::Saved bn_projection;
    SqueezeExcitation::Saved squeeze;
  };

  /// Registers the tensors under torchvision's names. `prefix`: "trunk_output.block1.block1-0" or "layer1.0".
  Block(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, const Shape& shape);

  /// x: [n, h, w, width_in]; saved.out: [n, h', w', width]. Keeps only `out` if no backward pass follows.
  void forward(const Context& ctx, device::Tensor x, Saved& saved, Keep keep = Keep::all) const;
  /// Overwrites d_out. Frees the tensors of `saved` after their last use. Returns d_x.
  device::Loan backward(const Context& ctx, device::Loan d_out, Saved& saved) const;

 private:
  void convolve(const Context& ctx, Saved& saved) const;
  void activate(const Context& ctx, Saved& saved, std::size_t i) const;
  kernels::BatchNorm bn(const Context& ctx, const Saved& saved, std::size_t i) const {
    return layers_[i].bn().view(ctx, saved.bn[i]);
  }
  /// The input of layer i.
  device::Tensor source(const Saved& saved, std::size_t i) const { return i == 0 ? saved.x : *saved.activated[i - 1]; }
  bool gates(std::size_t i) const { return squeezes_ && i == 1; }
  /// The last layer, and the projection if there is one: they share messages.
  template <class T>
  std::span<const T> ends(const std::array<T, 2>& parts) const {
    return std::span(parts).first(projected_ ? 2 : 1);
  }

  std::size_t last_ = 0;  ///< layer
  bool projected_ = false, squeezes_ = false;
  std::array<ConvNorm, 3> layers_;
  ConvNorm projection_;
  SqueezeExcitation squeeze_;
};

}  // namespace seer::nn
