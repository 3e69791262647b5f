// SPDX-License-Identifier: Apache-2.0
// What Kokkos is needed for: its start and end, and regions for profilers.
#include "seer/device/session.hpp"

#include <omp.h>

#include <Kokkos_Core.hpp>
#include <cstdlib>
#include <fstream>
#include <type_traits>

#include "seer/device/binding.hpp"
#include "seer/device/region.hpp"
#if defined(SEER_CUDA)
#include <nvtx3/nvToolsExt.h>
#endif

namespace seer::device {

Session::Session(int threads) {
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  if (threads == 0) threads = wanted != nullptr && *wanted != '\0' ? omp_get_max_threads() : 1;
  omp_set_dynamic(0);  // teams must have the requested size: oneDNN waits for all of their threads
  omp_set_num_threads(threads);
  if (Kokkos::is_initialized()) return;
#if defined(KOKKOS_ENABLE_CUDA)
  if (bound_device() < 0) return;
  Kokkos::initialize(Kokkos::InitializationSettings().set_device_id(bound_device()));
#else
  int argc = 0;
  Kokkos::initialize(argc, nullptr);
#endif
}

Session::~Session() {
  if (Kokkos::is_initialized()) Kokkos::finalize();
}

bool kernels_need_device() {
  return !std::is_same_v<Kokkos::DefaultExecutionSpace, Kokkos::DefaultHostExecutionSpace>;
}

int threads() {
  return omp_get_max_threads();
}

std::string processor() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const auto colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

std::string describe() {
  const std::string model = processor(), device = describe_device();
  return (device.empty() ? "" : device + "\n") + "host: " + (model.empty() ? "unknown processor" : model) +
         ", threads per rank " + std::to_string(threads()) + ", Kokkos " + Kokkos::DefaultHostExecutionSpace::name();
}

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
