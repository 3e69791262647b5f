// SPDX-License-Identifier: Apache-2.0
#include "seer/device/region.hpp"

#include <Kokkos_Core.hpp>
#if defined(SEER_CUDA)
#include <nvtx3/nvToolsExt.h>
#endif

namespace seer::device {

bool Region::told() {
  return Kokkos::Profiling::profileLibraryLoaded();
}

Region::Region(const char* name) : named_(name != nullptr), told_(named_ && told()) {
  if (told_) Kokkos::Profiling::pushRegion(name);
#if defined(SEER_CUDA)
  if (named_) nvtxRangePushA(name);
#endif
}

Region::~Region() {
#if defined(SEER_CUDA)
  if (named_) nvtxRangePop();
#endif
  if (told_) Kokkos::Profiling::popRegion();
}

}  // namespace seer::device
