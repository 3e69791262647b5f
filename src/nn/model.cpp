// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/model.hpp"

#include <fmt/format.h>

#include "seer/base/error.hpp"

namespace seer::nn {

Model::Model(const config::Model& model, const config::Head& head) {
  const auto arch = architecture(model);
  trunk_.emplace(arch, parameters_, buffers_);
  if (head.dims.empty()) return;
  if (head.dims.size() < 2 || head.dims.front() != arch.features()) {
    throw Error(
        ExitCode::input,
        fmt::format("head.dims starts with {}, but the trunk {} gives {} features", head.dims.front(),
                    model.preset.empty() ? "given by its numbers" : "\"" + model.preset + "\"", arch.features()),
        fmt::format("set head.dims = [{}, ...] with at least two entries", arch.features()))
        .as_agreed();
  }
  head_.emplace(head, parameters_, buffers_);
}

void Model::initialize(std::uint64_t seed, float* parameters, float* buffers) const {
  nn::initialize(parameters_, seed, parameters);
  nn::initialize(buffers_, seed, buffers);
}

}  // namespace seer::nn
