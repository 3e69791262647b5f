// SPDX-License-Identifier: Apache-2.0
// LARS or SGD over the flat blocks (spec 5.1). Nothing is excluded from LARS or from weight decay.
//
// On a device norms, flags and the rule lie there, and an update waits for nothing; read_squares() brings the norms.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/pinned.hpp"
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
    kernels::FlatRanges there;           ///< the same on a device
  };

  /// Its queue is the one that all calls are given.
  Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue);

  /// The tensors that [begin, end) of the block touches.
  Part part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end) const;

  /// Tensors named here take no part (frozen prototypes: no decay, no momentum).
  void set_frozen(std::string_view name, bool frozen);

  /// The gradients lie in memory multiplied by this (the loss scale): norms, LARS and step divide by it.
  void set_gradient_scale(double scale) { rule_.gradient_factor = static_cast<float>(1 / scale); }

  /// Squared norms of this part's tensors, as far as this rank holds them. Pointers are to the part's begin.
  void measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters);
  /// Squared norms of the tensors [first, last) as one message where the queue works, to be summed over the ranks that
  /// hold the other parts.
  std::span<double> pack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  /// Takes them back from there.
  void unpack_squares(device::Queue& queue, std::size_t first, std::size_t last);
  void forget_squares(device::Queue& queue);
  /// Before gradient_norm() and not_finite() are asked. Waits for a device.
  void read_squares(device::Queue& queue);
  /// sqrt of the sum of squares of all gradients, those of frozen tensors left out. Not finite: the gradients are not.
  double gradient_norm() const;
  /// The first tensor, as the backward pass comes by them, whose summed gradient is not finite; "" if all are.
  std::string not_finite() const;
  /// Of the steps that follow. On a device the one before has been waited for.
  void set_rate(device::Queue& queue, double lr);
  /// Momenta and parameters updated in place. Needs the squares of the same gradients.
  void step(device::Queue& queue, const Part& part, const float* gradients, float* momenta, float* parameters);

 private:
  bool on_device() const { return there_.bytes() > 0; }
  kernels::UpdateRule rule_;
  std::vector<std::string> names_;
  std::vector<std::uint8_t> skip_;
  std::vector<double> squares_;  ///< of gradients, then of parameters
  std::vector<double> message_;  ///< likewise, of some tensors

  /// On a device: squares, a message of them, the rule, flags.
  device::Buffer there_;
  device::PinnedBuffer here_;  ///< the same, for the host to fill and to read
  double* squares_there() const { return static_cast<double*>(there_.data()); }
  double* message_there() const { return squares_there() + squares_.size(); }
  std::size_t rule_bytes_at() const { return 2 * squares_.size() * sizeof(double); }
  std::size_t skip_bytes_at() const { return rule_bytes_at() + sizeof(kernels::UpdateRule); }
};

}  // namespace seer::train
