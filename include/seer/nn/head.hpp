// SPDX-License-Identifier: Apache-2.0
// SwAV's projection head (spec 2): linear layers (ReLU between, none after; optional BatchNorm before the ReLU), rows
// L2-normalised, then prototypes (linear, no bias). Runs once on the features of all crops.
//
// Runs through as segments, like the trunk: each linear layer is one (the last with the normalisation behind it), then
// the prototypes, so that a segment's parameters are needed, and its gradients complete, at one time.
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
    device::Loan gradient;  ///< of the output of the segment whose backward pass comes next

    /// Gives every tensor back; the memory of the list stays.
    void clear();
  };

  /// Registers head.<i>.weight|bias (head.<i>.norm.* with BatchNorm) and prototypes.weight, which the first
  /// `frozen_updates` updates leave as it is.
  Head(const config::Head& head, std::int64_t frozen_updates, ParameterTable& parameters, ParameterTable& buffers);

  std::size_t segments() const { return layers_.size() + 1; }
  /// Where the parameters of segment i begin in a block; [segments()]: where the last one's end.
  const std::vector<std::int64_t>& segment_begins() const { return begins_; }

  /// features: [rows, dims[0]], read with the first segment, and to stay until the backward pass is over; scores:
  /// [rows, prototypes], written with the last (skipped where it has no data). The normalised embedding
  /// [rows, dims.back()] is in `pass.embedding` before that.
  void forward_segment(const Context& ctx, std::size_t segment, device::Tensor features, Pass& pass,
                       device::Tensor scores) const;
  /// From the last segment to the first. d_scores is read with the last one; d_features: [rows, dims[0]], written with
  /// the first.
  void backward_segment(const Context& ctx, std::size_t segment, device::Tensor d_scores, Pass& pass,
                        device::Tensor d_features) const;

  /// All segments.
  void forward(const Context& ctx, device::Tensor features, Pass& pass, device::Tensor scores) const;
  /// Gradients of the parameters are accumulated.
  void backward(const Context& ctx, device::Tensor d_scores, Pass& pass, device::Tensor d_features) const;
  /// Scores of stored embeddings [rows, dim] (the queue).
  void score(const Context& ctx, device::Tensor embeddings, device::Tensor scores) const;

  std::int64_t dim() const { return dims_.back(); }
  std::int64_t prototypes() const { return prototypes_; }
  /// Where the head's parameters begin in a block.
  std::int64_t begin() const { return layers_.front().weight; }

 private:
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
