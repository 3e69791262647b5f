// SPDX-License-Identifier: Apache-2.0
// Trunk and head with their tables: everything that depends on the configuration of the model and on nothing else.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "seer/nn/chain.hpp"
#include "seer/nn/head.hpp"

namespace seer::nn {

class Model {
 public:
  /// Without a head (head.dims empty): a trunk for feature extraction. The prototypes do not move in the first
  /// `frozen_updates` updates. Error(input) where head.dims[0] is not the trunk's feature width, naming both.
  Model(const config::Model& model, const config::Head& head, std::int64_t frozen_updates = 0);

  const ParameterTable& parameters() const { return parameters_; }
  const ParameterTable& buffers() const { return buffers_; }
  const Chain& trunk() const { return *trunk_; }
  bool has_head() const { return head_.has_value(); }
  const Head& head() const { return *head_; }

  /// Where the parameters of each segment begin in a block, those of the trunk and then those of the head; at last
  /// where the last one's end.
  std::vector<std::int64_t> segment_begins() const;

  /// Starting values of both blocks (method.md 1.3, 2): parameters drawn by name, running mean 0 and variance 1.
  void initialize(std::uint64_t seed, float* parameters, float* buffers) const;

 private:
  ParameterTable parameters_, buffers_;
  std::unique_ptr<Chain> trunk_;
  std::optional<Head> head_;
};

}  // namespace seer::nn
