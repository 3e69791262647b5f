// SPDX-License-Identifier: Apache-2.0
// Injects the faults that the configuration orders ([faults]), to rehearse how the guard handles real ones.
#pragma once

#include <cstdint>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/queue.hpp"

namespace seer::train {

class Faults {
 public:
  /// On a planned communicator, there are no faults.
  Faults(const config::Faults& config, const comm::Communicator& comm);

  /// `gradient`: one element of this rank's own gradient, before the sum over ranks. A listed update is struck each
  /// time it is computed, as a bad batch would be: NaN in both passes of a replay; the flip of the lowest bit in the
  /// second pass only. `update` counts from 1.
  void strike(device::Queue& queue, std::int64_t update, bool second_pass, float* gradient) const;

 private:
  config::Faults config_;
  bool nan_here_ = false, flip_here_ = false;
};

}  // namespace seer::train
