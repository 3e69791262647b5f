// SPDX-License-Identifier: Apache-2.0
// LARS or SGD over the flat blocks (spec 5.1). Nothing is excluded from LARS or from weight decay.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/device/queue.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::train {

class Optimizer {
 public:
  Optimizer(const config::Optimizer& config, const nn::ParameterTable& table);

  /// sqrt of the sum of squares of all gradients, those of skipped tensors left out. Keeps the per-tensor squares for
  /// step(). Not finite: the gradients are not.
  double measure(device::Queue& queue, const float* gradients);
  /// Tensors named here take no part (frozen prototypes: no decay, no momentum).
  void set_frozen(const std::string& name, bool frozen);
  /// parameters, momenta updated in place. Needs measure() of the same gradients.
  void step(device::Queue& queue, double lr, const float* gradients, float* momenta, float* parameters);

 private:
  kernels::UpdateRule rule_;
  std::vector<std::string> names_;
  std::vector<kernels::Range> ranges_;
  std::vector<std::uint8_t> skip_;
  std::vector<double> gradient_squares_, parameter_squares_;
};

}  // namespace seer::train
