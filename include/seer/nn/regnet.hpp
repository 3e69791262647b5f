// SPDX-License-Identifier: Apache-2.0
// The RegNetY trunk (spec 1.2): stem, stages of blocks, global average pool.
#pragma once

#include <vector>

#include "seer/nn/architecture.hpp"
#include "seer/nn/block.hpp"

namespace seer::nn {

/// Runs through as segments (the stem, then every block), so that several crop resolutions can advance together and a
/// segment's parameters are needed, and its gradients complete, at one time.
class RegNet {
 public:
  /// What one forward pass keeps for its backward pass: one per crop resolution.
  struct Pass {
    device::Tensor images;  ///< in the type of the activations: the caller's, or `rounded`
    device::Loan rounded;
    device::Loan stem, stem_out;
    BatchNormLayer::Saved bn_stem;
    std::vector<Block::Saved> blocks;
    device::Loan gradient;   ///< of the output of the segment whose backward pass comes next
    std::vector<Keep> keep;  ///< a segment's choice; empty: all

    /// Gives every tensor back. The choices stay, and so does the memory of the lists.
    void clear();
  };

  RegNet(const Architecture& architecture, ParameterTable& parameters, ParameterTable& buffers);

  std::size_t segments() const { return 1 + blocks_.size(); }
  /// Where the parameters of segment i begin in a block; [segments()]: where the last one's end.
  const std::vector<std::int64_t>& segment_begins() const { return begins_; }

  /// images: [n, h, w, 3], float; `features`, of the last segment: [n, features()], float, written. In eval mode `pass`
  /// ends without tensors.
  void forward_segment(const Context& ctx, std::size_t segment, device::Tensor images, Pass& pass,
                       device::Tensor features) const;
  /// From the last segment to the first. d_features is read with the last one. `d_images`, where given, receives the
  /// gradient of the images with the first one.
  void backward_segment(const Context& ctx, std::size_t segment, device::Tensor d_features, Pass& pass,
                        const device::Tensor* d_images = nullptr) const;

  /// All segments.
  void forward(const Context& ctx, device::Tensor images, Pass& pass, device::Tensor features) const;
  /// Gradients of the parameters are accumulated.
  void backward(const Context& ctx, device::Tensor d_features, Pass& pass,
                const device::Tensor* d_images = nullptr) const;

  std::int64_t features() const { return features_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  dnn::ConvShape conv_stem(device::Shape images) const;
  void stem_forward(const Context& ctx, Pass& pass) const;
  void stem_backward(const Context& ctx, Pass& pass, const device::Tensor* d_images) const;
  std::vector<std::int64_t> begins_;
  std::int64_t features_ = 0, weight_stem_ = 0;
  BatchNormLayer bn_stem_;
  std::vector<Block> blocks_;
};

}  // namespace seer::nn
