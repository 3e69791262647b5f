// SPDX-License-Identifier: Apache-2.0
// SwAV's prototypes (method.md 2): a linear layer without bias whose weight rows have length one. One segment.
#pragma once

#include <vector>

#include "seer/nn/chain.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::nn {

class Prototypes final : public Chain {
 public:
  /// Registers prototypes.weight [count, dim], which does not change in the first `frozen_updates` updates.
  Prototypes(std::int64_t count, std::int64_t dim, std::int64_t frozen_updates, ParameterTable& parameters);

  const std::vector<std::int64_t>& segment_begins() const override { return begins_; }
  std::int64_t width() const override { return count_; }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options = {}) const override;
  /// embeddings: [rows, dim]; scores: [rows, width()].
  void forward(const Context& ctx, std::size_t segment, device::Tensor embeddings, nn::Pass& pass,
               device::Tensor scores) const override;
  void backward(const Context& ctx, std::size_t segment, device::Tensor d_scores, nn::Pass& pass,
                device::Tensor d_embeddings) const override;

 private:
  struct Pass;
  std::int64_t count_, dim_, weight_ = 0;
  std::vector<std::int64_t> begins_;
};

}  // namespace seer::nn
