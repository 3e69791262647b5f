// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/energy.hpp"

namespace seer::watch {

Energy::Energy(const comm::Communicator& world, bool devices, const std::string& powercap)
    : world_(world.duplicate().named("energy")) {
  const bool first = world.node().rank() == 0;  // the counters are the node's
  if (first) host_.emplace(powercap);
  if (devices) device_.emplace(device::pci_bus_id());
  const auto everywhere = [&](bool here) { return world.all_reduce(here ? 1.0 : 0.0, comm::Op::min) > 0; };
  if (!everywhere(!first || host_->readable()))
    host_.reset();
  else
    counted_ = "processors and memory";
  if (!everywhere(device_ && device_->readable()))
    device_.reset();
  else
    counted_ = counted_.empty() ? "devices" : "processors, memory and devices";
}

void Energy::tick() {
  if (host_) host_->joules();
}

std::optional<double> Energy::take_joules() {
  if (counted_.empty()) return {};
  const double now = (host_ ? host_->joules() : 0) + (device_ ? device_->joules() : 0), since = now - taken_;
  taken_ = now;
  return world_.all_reduce(since, comm::Op::sum);
}

}  // namespace seer::watch
