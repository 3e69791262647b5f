// SPDX-License-Identifier: Apache-2.0
// Trunk and heads with the tables of their tensors: everything that depends on the configuration of the model alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/nn/chain.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::nn {

/// Chains of which the first takes the trunk's features, and each other one what the one before it puts out.
using Heads = std::vector<std::unique_ptr<Chain>>;
/// Makes the heads on a trunk of so many features.
using MakeHeads = std::function<Heads(std::int64_t features, ParameterTable& parameters, ParameterTable& buffers)>;

/// The heads that config::Head describes: the projector, and behind it, where head.prototypes is not 0, the prototypes,
/// which stay as they are in the first `frozen_updates` updates. Nothing where head.dims is empty.
MakeHeads projection_heads(const config::Head& head, std::int64_t frozen_updates = 0);

class Model {
 public:
  /// Error(input) for a trunk that config::Model does not describe, and what making the heads refuses.
  explicit Model(const config::Model& model, const MakeHeads& make_heads = {});

  const ParameterTable& parameters() const { return parameters_; }
  const ParameterTable& buffers() const { return buffers_; }
  const Chain& trunk() const { return *trunk_; }
  const Heads& heads() const { return heads_; }

  /// Where the parameters of each segment begin in a block, those of the trunk and then those of the heads; at last
  /// where the last one's end.
  std::vector<std::int64_t> segment_begins() const;
  /// What a segment of the whole that is none of the trunk's is: segment `segment` of heads()[head].
  struct HeadSegment {
    std::size_t head = 0, segment = 0;
  };
  HeadSegment head_segment(std::size_t of_all) const;

  /// Starting values of both blocks (method.md 1.3, 2): parameters drawn by name, running mean 0 and variance 1.
  void initialize(std::uint64_t seed, float* parameters, float* buffers) const;

 private:
  ParameterTable parameters_, buffers_;
  std::unique_ptr<Chain> trunk_;
  Heads heads_;
};

}  // namespace seer::nn
