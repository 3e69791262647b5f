// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/model.hpp"

#include "seer/nn/projector.hpp"
#include "seer/nn/prototypes.hpp"
#include "seer/nn/trunk.hpp"

namespace seer::nn {

MakeHeads projection_heads(const config::Head& head, std::int64_t frozen_updates) {
  return [=](std::int64_t features, ParameterTable& parameters, ParameterTable& buffers) {
    Heads heads;
    if (head.dims.empty()) return heads;
    heads.push_back(std::make_unique<Projector>(Projector::Options{.dims = head.dims, .batchnorm = head.batchnorm},
                                                features, parameters, buffers));
    if (head.prototypes > 0) {
      heads.push_back(std::make_unique<Prototypes>(head.prototypes, head.dims.back(), frozen_updates, parameters));
    }
    return heads;
  };
}

Model::Model(const config::Model& model, const MakeHeads& make_heads)
    : trunk_(make_trunk(model, parameters_, buffers_)) {
  if (make_heads) heads_ = make_heads(trunk_->width(), parameters_, buffers_);
}

std::vector<std::int64_t> Model::segment_begins() const {
  auto begins = trunk_->segment_begins();
  for (const auto& head : heads_) {
    const auto& more = head->segment_begins();
    begins.insert(begins.end(), more.begin() + 1, more.end());
  }
  return begins;
}

Model::HeadSegment Model::head_segment(std::size_t of_all) const {
  HeadSegment out{0, of_all - trunk_->segments()};
  for (; out.segment >= heads_.at(out.head)->segments(); ++out.head) out.segment -= heads_[out.head]->segments();
  return out;
}

void Model::initialize(std::uint64_t seed, float* parameters, float* buffers) const {
  nn::initialize(parameters_, seed, parameters);
  nn::initialize(buffers_, seed, buffers);
}

}  // namespace seer::nn
