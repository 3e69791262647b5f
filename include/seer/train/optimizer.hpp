// SPDX-License-Identifier: Apache-2.0
// LARS or SGD over the flat blocks (spec 5.1). Nothing is excluded from LARS or from weight decay.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/device/queue.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::train {

class Optimizer {
 public:
  /// A stretch of the blocks that is updated at a time: consecutive tensors, each cut to what this rank holds of it.
  struct Part {
    std::size_t first_tensor = 0;
    std::vector<kernels::Range> ranges;  ///< relative to the stretch's begin
  };

  Optimizer(const config::Optimizer& config, const nn::ParameterTable& table);

  /// The tensors that [begin, end) of the block touches.
  static Part part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end);

  /// Tensors named here take no part (frozen prototypes: no decay, no momentum).
  void set_frozen(std::string_view name, bool frozen);

  /// The gradients lie in memory multiplied by this (the loss scale): norms, LARS and step divide by it.
  void set_gradient_scale(double scale) { rule_.gradient_factor = static_cast<float>(1 / scale); }

  /// Squared norms of this part's tensors, as far as this rank holds them. Pointers are to the part's begin.
  void measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters);
  /// Squared norms of the tensors [first, last) as one message, to be summed over the ranks that hold the other parts.
  std::span<double> pack_squares(std::size_t first, std::size_t last);
  /// Takes them back from there.
  void unpack_squares(std::size_t first, std::size_t last);
  void forget_squares();
  /// sqrt of the sum of squares of all gradients, those of frozen tensors left out. Not finite: the gradients are not.
  double gradient_norm() const;
  /// The first tensor, as the backward pass comes by them, whose summed gradient is not finite; "" if all are.
  std::string not_finite() const;
  /// Momenta and parameters updated in place. Needs the squares of the same gradients.
  void step(device::Queue& queue, const Part& part, double lr, const float* gradients, float* momenta,
            float* parameters);

 private:
  kernels::UpdateRule rule_;
  std::vector<std::string> names_;
  std::vector<std::uint8_t> skip_;
  std::vector<double> squares_;  ///< of gradients, then of parameters
  std::vector<double> message_;  ///< likewise, of some tensors
};

}  // namespace seer::train
