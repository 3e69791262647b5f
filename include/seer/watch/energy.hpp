// SPDX-License-Identifier: Apache-2.0
// Energy that a job uses: processors and memory of all its nodes, and the devices of its ranks.
#pragma once

#include <optional>
#include <string>

#include "seer/comm/communicator.hpp"
#include "seer/device/energy.hpp"

namespace seer::watch {

class Energy {
 public:
  /// Collective. Processors count if one rank of every node can read their counters, devices if every rank can read
  /// its own. `powercap`: the folder of the former. `devices`: whether ranks compute on devices.
  Energy(const comm::Communicator& world, bool devices, const std::string& powercap = "/sys/class/powercap");

  /// "processors and memory", "devices", "processors, memory and devices", or "" if nothing can be read.
  const std::string& counted() const { return counted_; }
  /// Keeps counters from wrapping unseen: call it at every update.
  void tick();
  /// Collective. Joules of all nodes since the last call, or since construction; nothing if none can be read.
  std::optional<double> take_joules();

 private:
  comm::Communicator world_;  ///< separate: its messages are not the update's
  std::optional<device::HostEnergy> host_;
  std::optional<device::DeviceEnergy> device_;
  std::string counted_;
  double taken_ = 0;
};

/// Images for each watt-hour; 0 if the energy is unknown.
inline double images_per_wh(double images, std::optional<double> joules) {
  return joules.value_or(0) > 0 ? 3600 * images / *joules : 0;
}

}  // namespace seer::watch
