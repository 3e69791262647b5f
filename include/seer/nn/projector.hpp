// SPDX-License-Identifier: Apache-2.0
// The projection head (method.md 2): linear layers with ReLU between them, optional BatchNorm before each ReLU, and
// optional normalisation of the output rows to length one. It runs once on the features of all crops. Each linear layer
// is a segment.
#pragma once

#include <string>
#include <vector>

#include "seer/nn/batchnorm.hpp"
#include "seer/nn/chain.hpp"

namespace seer::nn {

class Projector final : public Chain {
 public:
  enum class Rows : bool { as_they_are, unit };
  struct Options {
    std::vector<std::int64_t> dims;
    bool batchnorm = false;
    Rows rows = Rows::unit;
    std::string name = "head";
  };
  /// Registers <name>.<i>.weight|bias, and <name>.<i>.norm.* with BatchNorm. Error(input) if dims does not begin
  /// with `features` or has fewer than two entries.
  Projector(const Options& options, std::int64_t features, ParameterTable& parameters, ParameterTable& buffers);

  const std::vector<std::int64_t>& segment_begins() const override { return begins_; }
  std::int64_t width() const override { return dims_.back(); }
  std::unique_ptr<nn::Pass> make_pass(PassOptions options = {}) const override;
  /// features: [rows, dims[0]]; embeddings: [rows, width()], which must stay until the backward pass is over.
  void forward(const Context& ctx, std::size_t segment, device::Tensor features, nn::Pass& pass,
               device::Tensor embeddings) const override;
  void backward(const Context& ctx, std::size_t segment, device::Tensor d_embeddings, nn::Pass& pass,
                device::Tensor d_features) const override;

 private:
  struct Pass;
  struct Linear {
    std::int64_t weight = 0, bias = 0;
    BatchNormLayer bn;
  };
  std::vector<std::int64_t> begins_, dims_;
  bool batchnorm_;
  Rows rows_;
  std::vector<Linear> layers_;
};

}  // namespace seer::nn
