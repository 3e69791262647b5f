// SPDX-License-Identifier: Apache-2.0
// SwAV's projection head (spec 2): linear layers (ReLU between, none after; optional BatchNorm before the ReLU), rows
// L2-normalised, then prototypes (linear, no bias). Runs once on the features of all crops.
#pragma once

#include <vector>

#include "seer/config/config.hpp"
#include "seer/nn/batchnorm.hpp"

namespace seer::nn {

class Head {
 public:
  struct Pass {
    device::Tensor features;
    struct Layer {
      device::Loan linear;  ///< before BatchNorm and ReLU (kept only with BatchNorm)
      device::Loan out;     ///< after
      BatchNormLayer::Saved bn;
    };
    std::vector<Layer> layers;
    device::Loan embedding, norms;
  };

  /// Registers head.<i>.weight|bias (head.<i>.norm.* with BatchNorm) and prototypes.weight.
  Head(const config::Head& head, ParameterTable& parameters, ParameterTable& buffers);

  /// features: [rows, dims[0]]; scores: [rows, prototypes], written (skipped where it has no data). The normalised
  /// embedding [rows, dims.back()] stays in `pass.embedding`.
  void forward(const Context& ctx, device::Tensor features, Pass& pass, device::Tensor scores) const;
  /// d_features: [rows, dims[0]], written.
  void backward(const Context& ctx, device::Tensor d_scores, Pass& pass, device::Tensor d_features) const;
  /// Scores of stored embeddings [rows, dim] (the queue).
  void score(const Context& ctx, device::Tensor embeddings, device::Tensor scores) const;

  std::int64_t dim() const { return dims_.back(); }
  std::int64_t prototypes() const { return prototypes_; }
  /// Where the head's parameters begin in a block; prototypes are the block's last tensor.
  std::int64_t begin() const { return layers_.front().weight; }
  std::int64_t prototypes_begin() const { return prototype_weight_; }

 private:
  struct Linear {
    std::int64_t weight = 0, bias = 0;
    BatchNormLayer bn;
  };
  std::vector<std::int64_t> dims_;
  bool batchnorm_;
  std::int64_t prototypes_, prototype_weight_ = 0;
  std::vector<Linear> layers_;
};

}  // namespace seer::nn
