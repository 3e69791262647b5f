// SPDX-License-Identifier: Apache-2.0
// Named regions for profilers: those of Kokkos Tools (KOKKOS_PROFILE_LIBRARY=..., see validation/profile.sh), and in a
// device build also NVTX ranges (nsys). Without a tool, a region costs only the check for one.
#pragma once

namespace seer::device {

/// Lasts until the end of its scope. Regions nest. nullptr: no region.
class Region {
 public:
  explicit Region(const char* name);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  /// True if a Kokkos tool is loaded, which receives regions and kernels.
  static bool told();

 private:
  bool named_, told_;
};

}  // namespace seer::device
