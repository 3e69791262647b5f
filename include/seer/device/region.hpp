// SPDX-License-Identifier: Apache-2.0
// Names for profilers: regions of Kokkos Tools (KOKKOS_PROFILE_LIBRARY=..., see validation/profile.sh), in a device
// build also ranges of NVTX (nsys). Without a tool a region costs the look whether there is one.
#pragma once

namespace seer::device {

/// From here to the end of its scope. Regions nest; nullptr is none.
class Region {
 public:
  explicit Region(const char* name);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  /// Whether a Kokkos tool is told of regions and kernels.
  static bool told();

 private:
  bool named_, told_;
};

}  // namespace seer::device
