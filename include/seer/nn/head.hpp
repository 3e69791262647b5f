// SPDX-License-Identifier: Apache-2.0
// SwAV's projection head (method.md 2): linear layers (ReLU between, none after; optional BatchNorm before the ReLU),
// rows L2-normalised, then prototypes (linear, no bias). Runs once on the features of all crops. Its segments are the
// linear layers (the last with the normalisation behind it) and the prototypes.
#pragma once

#include <vector>

#include "seer/config/config.hpp"
#include "seer/nn/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

class Head final : public Chain {
 public:
  /// Registers head.<i>.weight|bias (head.<i>.norm.* with BatchNorm) and prototypes.weight, which the first
  /// `frozen_updates` updates leave as it is.
  Head(const config::Head& head, std::int64_t frozen_updates, ParameterTable& parameters, ParameterTable& buffers);

  const std::vector<std::int64_t>& segment_begins() const override { return begins_; }
  /// Prototypes.
  std::int64_t width() const override { return prototypes_; }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options = {}) const override;
  /// features: [rows, dims[0]]; scores: [rows, width()], not computed where it has no memory.
  void forward(const Context& ctx, std::size_t segment, device::Tensor features, nn::Pass& pass,
               device::Tensor scores) const override;
  void backward(const Context& ctx, std::size_t segment, device::Tensor d_scores, nn::Pass& pass,
                device::Tensor d_features) const override;

  /// The normalised rows [rows, dim()] of a pass that has left the linear layers.
  device::Tensor embedding(const nn::Pass& pass) const { return pass.output(segments() - 2); }
  /// Scores of stored embeddings [rows, dim()] (the queue).
  void score(const Context& ctx, device::Tensor embeddings, device::Tensor scores) const;

  std::int64_t dim() const { return dims_.back(); }
  /// Where the head's parameters begin in a block.
  std::int64_t begin() const { return layers_.front().weight; }

 private:
  struct Pass;
  struct Linear {
    std::int64_t weight = 0, bias = 0;
    BatchNormLayer bn;
  };
  void linear_forward(const Context& ctx, std::size_t layer, Pass& pass) const;
  void linear_backward(const Context& ctx, std::size_t layer, Pass& pass, device::Tensor d_features) const;
  std::vector<std::int64_t> begins_, dims_;
  bool batchnorm_;
  std::int64_t prototypes_, prototype_weight_ = 0;
  std::vector<Linear> layers_;
};

}  // namespace seer::nn
