// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/model.hpp"

#include <fmt/format.h>

#include "seer/base/error.hpp"
#include "seer/nn/regnet.hpp"

namespace seer::nn {

Model::Model(const config::Model& model, const config::Head& head, std::int64_t frozen_updates) {
  const auto arch = architecture(model);
  trunk_ = std::make_unique<RegNet>(arch, parameters_, buffers_);
  if (head.dims.empty()) return;
  if (head.dims.size() < 2 || head.dims.front() != arch.features()) {
    throw Error(
        ExitCode::input,
        fmt::format("head.dims starts with {}, but the trunk {} gives {} features", head.dims.front(),
                    model.preset.empty() ? "given by its numbers" : "\"" + model.preset + "\"", arch.features()),
        fmt::format("set head.dims = [{}, ...] with at least two entries", arch.features()))
        .as_agreed();
  }
  head_.emplace(head, frozen_updates, parameters_, buffers_);
}

std::vector<std::int64_t> Model::segment_begins() const {
  auto begins = trunk_->segment_begins();
  if (!head_) return begins;
  const auto& of_head = head_->segment_begins();
  begins.insert(begins.end(), of_head.begin() + 1, of_head.end());
  return begins;
}

void Model::initialize(std::uint64_t seed, float* parameters, float* buffers) const {
  nn::initialize(parameters_, seed, parameters);
  nn::initialize(buffers_, seed, buffers);
}

}  // namespace seer::nn
