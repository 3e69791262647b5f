// SPDX-License-Identifier: Apache-2.0
// Faults that were ordered by the configuration ([faults]), to rehearse what the guard does about real ones.
#pragma once

#include <cstdint>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/queue.hpp"

namespace seer::train {

class Faults {
 public:
  /// On a planned communicator: none.
  Faults(const config::Faults& config, const comm::Communicator& comm);

  /// `gradient`: one element of this rank's own, before it is summed. Every update that is listed is struck whenever it
  /// is computed, as a bad batch would be: with NaN in both passes of a replay, with a flipped bit (the lowest) in the
  /// second alone. `update` counts from 1.
  void strike(device::Queue& queue, std::int64_t update, bool second_pass, float* gradient) const;

 private:
  config::Faults config_;
  bool nan_here_ = false, flip_here_ = false;
};

}  // namespace seer::train
