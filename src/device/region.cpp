// SPDX-License-Identifier: Apache-2.0
#include "seer/device/region.hpp"

#include <Kokkos_Core.hpp>

namespace seer::device {

Region::Region(const char* name) : told_(name != nullptr && Kokkos::Profiling::profileLibraryLoaded()) {
  if (told_) Kokkos::Profiling::pushRegion(name);
}

Region::~Region() {
  if (told_) Kokkos::Profiling::popRegion();
}

}  // namespace seer::device
