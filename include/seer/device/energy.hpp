// SPDX-License-Identifier: Apache-2.0
// Energy counters: of a node's processors and memory (RAPL, through the system's files), and of a device (NVML).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace seer::device {

/// Counters of packages and of memory beside them, in a folder like /sys/class/powercap. Parts of a package (core,
/// uncore) are in its counter already; a counter of the whole platform (psys) would count everything twice.
class HostEnergy {
 public:
  explicit HostEnergy(const std::string& folder = "/sys/class/powercap");
  /// True if there are counters and this process may read all of them; usually only root may.
  bool readable() const { return readable_; }
  /// Joules since construction. Call it every few minutes at least: a counter starts at 0 again after some 2.6e5 J.
  double joules();

 private:
  struct Counter {
    std::string file;
    std::int64_t range = 0, last = 0;  ///< microjoules
  };
  std::vector<Counter> counters_;
  bool readable_ = false;
  double joules_ = 0;
};

/// The counter of a whole device since its driver was loaded; parts of a device (MIG) share it.
class DeviceEnergy {
 public:
  /// `pci_bus_id`: "" for none. `library`: NVML, opened while the program runs.
  explicit DeviceEnergy(const std::string& pci_bus_id, const char* library = "libnvidia-ml.so.1");
  bool readable() const;
  /// Joules since construction.
  double joules() const;

 private:
  struct Nvml;
  std::shared_ptr<Nvml> nvml_;
  double first_ = 0;
};

/// PCI bus id of the bound device; "" if none is bound, and of the stand-in.
std::string pci_bus_id();

}  // namespace seer::device
