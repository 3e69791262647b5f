// SPDX-License-Identifier: Apache-2.0
// LARS or SGD over the flat blocks (method.md 5.1). Each tensor is treated as registered (nn::Treatment).
//
// Norms, flags and the rule lie in the queue's memory, so an update does not wait for the host. read_squares() copies
// the norms to the host.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::train {

class Optimizer {
 public:
  /// A part of the blocks that is updated at once: consecutive tensors, each cut to what this rank holds of it.
  struct Part {
    std::size_t first_tensor = 0;
    kernels::FlatRanges ranges;  ///< relative to the begin of the part
  };

  /// `queue`: the one that all calls get.
  Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue);

  /// The tensors in [begin, end) of the block.
  Part part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end) const;

  /// Number of the next update, from 0. Tensors that are frozen in it take no part: no decay, no momentum.
  void set_update(std::int64_t update);

  /// The gradients in memory are multiplied by `scale` (the loss scale): norms, LARS and step divide by it.
  void set_gradient_scale(double scale) { rule_.gradient_factor = static_cast<float>(1 / scale); }

  /// Takes squared norms of this part's tensors, as far as this rank holds them. Pointers are to the begin of the part.
  void measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters);
  /// Packs the squared norms of the tensors [first, last) into one message in the queue's memory, to be summed over the
  /// ranks that hold the other parts.
  std::span<double> pack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  /// Copies them back from the message.
  void unpack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  void forget_squares(device::Queue& queue);
  /// Call before gradient_norm() and not_finite(). Waits for a device.
  void read_squares(device::Queue& queue);
  /// Square root of the sum of squares of all gradients, except frozen tensors. Not finite if the gradients are not.
  double gradient_norm() const;
  /// Name of the first tensor, in the order of the backward pass, whose summed gradient is not finite; "" if all are
  /// finite.
  std::string not_finite() const;
  /// Sets the rate of the next steps. On a device, the previous step must have finished.
  void set_rate(device::Queue& queue, double lr);
  /// Updates momenta and parameters in place. Needs the squares of the same gradients.
  void step(device::Queue& queue, const Part& part, const float* gradients, float* momenta, float* parameters);

 private:
  bool is_frozen(std::size_t tensor) const { return (flags_[tensor] & kernels::kSkipped) != 0; }
  /// Squared norms of the gradients, then of the parameters.
  double* gradient_squares(std::size_t tensor) const { return squares_.on_queue() + tensor; }
  double* parameter_squares(std::size_t tensor) const { return gradient_squares(names_.size() + tensor); }
  double* message() const { return static_cast<double*>(message_.data()); }

  bool planned_;
  kernels::UpdateRule rule_;
  std::vector<std::string> names_;
  std::vector<nn::Treatment> treatments_;
  std::vector<std::uint8_t> flags_;                  ///< kernels::RangeFlag of each tensor
  device::Mirrored<kernels::UpdateRule> sent_rule_;  ///< what step() uses
  device::Mirrored<std::uint8_t> sent_flags_;
  device::Mirrored<double> squares_;
  device::Buffer message_;  ///< squares of some tensors, for a sum over ranks
};

}  // namespace seer::train
