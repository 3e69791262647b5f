// SPDX-License-Identifier: Apache-2.0
// RegNetY's bottleneck block (method.md 1.2): 1x1 conv, BN, ReLU -> grouped 3x3 conv, BN, ReLU -> squeeze-excitation ->
// 1x1 conv, BN -> sum with the shortcut -> ReLU. Forward and backward are explicit; everything between two
// convolutions is fused into as few passes over the activation as possible.
#pragma once

#include <optional>
#include <string>

#include "seer/nn/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

struct BlockShape {
  std::int64_t width_in = 0, width = 0, stride = 1, group_width = 1, squeeze = 0;
  bool projected() const { return width_in != width || stride != 1; }
};

class Block {
 public:
  /// Activations kept from forward to backward. `x` belongs to the previous block.
  struct Saved {
    device::Tensor x;
    device::Loan a, a_out, b, pooled, hidden, gate, b_out, c, projection, out;
    BatchNormLayer::Saved bn_a, bn_b, bn_c, bn_projection;
  };

  /// `prefix`: "trunk_output.block1.block1-0"
  Block(ParameterTable& parameters, ParameterTable& buffers, const std::string& prefix, const BlockShape& shape);

  /// x: [n, h, w, width_in]; saved.out: [n, h', w', width]. Keeps only `out` if no backward pass follows.
  void forward(const Context& ctx, device::Tensor x, Saved& saved, Keep keep = Keep::all) const;
  /// Overwrites d_out. Frees the tensors of `saved` after their last use. Returns d_x.
  device::Loan backward(const Context& ctx, device::Loan d_out, Saved& saved) const;

  const BlockShape& shape() const { return shape_; }

 private:
  void branches(const Context& ctx, Saved& saved) const;
  void join(const Context& ctx, Saved& saved) const;
  void activate_a(const Context& ctx, Saved& saved) const;
  void gate_b(const Context& ctx, Saved& saved) const;
  void squeeze_excite(const Context& ctx, Saved& saved) const;
  device::Loan squeeze_excite_backward(const Context& ctx, device::Tensor d_b_out, Saved& saved) const;
  dnn::ConvShape conv_a(device::Shape x) const;
  dnn::ConvShape conv_b(device::Shape x) const;
  dnn::ConvShape conv_c(device::Shape x) const;
  dnn::ConvShape conv_projection(device::Shape x) const;

  BlockShape shape_;
  std::int64_t weight_projection_ = 0, weight_a_ = 0, weight_b_ = 0, weight_c_ = 0;
  std::int64_t squeeze_weight_ = 0, squeeze_bias_ = 0, excite_weight_ = 0, excite_bias_ = 0;
  BatchNormLayer bn_projection_, bn_a_, bn_b_, bn_c_;
};

}  // namespace seer::nn
