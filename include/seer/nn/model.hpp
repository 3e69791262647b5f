// SPDX-License-Identifier: Apache-2.0
// The trunk and heads with the tables of their tensors: everything that depends only on the model's configuration.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/nn/chain.hpp"
#include "seer/nn/parameter.hpp"
#include "seer/nn/trunk.hpp"

namespace seer::nn {

/// The first chain takes the trunk's features; each later one takes the output of the one before it.
using Heads = std::vector<std::unique_ptr<Chain>>;
/// Makes the heads for a trunk with this number of features.
using MakeHeads = std::function<Heads(std::int64_t features, ParameterTable& parameters, ParameterTable& buffers)>;

/// The heads that config::Head describes: the projector, followed by the prototypes if head.prototypes is not 0. The
/// prototypes do not change in the first `frozen_updates` updates. No heads if head.dims is empty.
MakeHeads projection_heads(const config::Head& head, std::int64_t frozen_updates = 0);

class Model {
 public:
  /// Error(input) if config::Model does not describe a trunk. Also throws the errors of make_heads.
  explicit Model(const config::Model& model, const MakeHeads& make_heads = {})
      : trunk_(trunk_kind(model).make(model, parameters_, buffers_)) {
    if (make_heads) heads_ = make_heads(trunk_->width(), parameters_, buffers_);
  }

  const ParameterTable& parameters() const { return parameters_; }
  /// Lets `change` set the treatment of every parameter, before anything is made from the table.
  void treat(const std::function<void(Parameter&)>& change) { parameters_.treat(change); }
  const ParameterTable& buffers() const { return buffers_; }
  const Chain& trunk() const { return *trunk_; }
  const Heads& heads() const { return heads_; }

  /// Chain::segment_begins() of the trunk and then the heads, with one end: that of the last segment.
  std::vector<std::int64_t> segment_begins() const {
    auto begins = trunk_->segment_begins();
    for (const auto& head : heads_) {
      const auto& more = head->segment_begins();
      begins.insert(begins.end(), more.begin() + 1, more.end());
    }
    return begins;
  }
  /// Head and its segment, for a segment, past the trunk's, of the whole model.
  std::pair<std::size_t, std::size_t> head_segment(std::size_t of_all) const {
    std::size_t head = 0, segment = of_all - trunk_->segments();
    for (; segment >= heads_.at(head)->segments(); ++head) segment -= heads_[head]->segments();
    return {head, segment};
  }

  /// Fills both blocks (method.md 1.3, 2): parameters drawn at random by name, running mean 0 and variance 1.
  void initialize(std::uint64_t seed, float* parameters, float* buffers) const {
    nn::initialize(parameters_, seed, parameters);
    nn::initialize(buffers_, seed, buffers);
  }

 private:
  ParameterTable parameters_, buffers_;
  std::unique_ptr<Chain> trunk_;
  Heads heads_;
};

}  // namespace seer::nn
