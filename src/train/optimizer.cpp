// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <cmath>

namespace seer::train {

Optimizer::Optimizer(const config::Optimizer& config, const nn::ParameterTable& table) {
  rule_.momentum = static_cast<float>(config.momentum);
  rule_.weight_decay = static_cast<float>(config.weight_decay);
  rule_.trust = static_cast<float>(config.trust);
  rule_.lars = config.kind == "lars";
  for (const auto& p : table.entries()) {
    names_.push_back(p.name);
    ranges_.push_back({p.offset, p.offset + p.elems});
  }
  skip_.assign(ranges_.size(), 0);
  gradient_squares_.assign(ranges_.size(), 0);
  parameter_squares_.assign(ranges_.size(), 0);
}

void Optimizer::set_frozen(const std::string& name, bool frozen) {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) skip_[i] = frozen ? 1 : 0;
  }
}

double Optimizer::measure(device::Queue& queue, const float* gradients) {
  kernels::squared_norms(queue, gradients, ranges_, gradient_squares_.data());
  double sum = 0;
  for (std::size_t i = 0; i < ranges_.size(); ++i) sum += skip_[i] != 0 ? 0 : gradient_squares_[i];
  return std::sqrt(sum);
}

void Optimizer::step(device::Queue& queue, double lr, const float* gradients, float* momenta, float* parameters) {
  rule_.lr = static_cast<float>(lr);
  kernels::squared_norms(queue, parameters, ranges_, parameter_squares_.data());
  kernels::optimizer_update(queue, ranges_, skip_, parameter_squares_.data(), gradient_squares_.data(), rule_,
                            gradients, momenta, parameters);
}

}  // namespace seer::train
