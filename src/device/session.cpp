// SPDX-License-Identifier: Apache-2.0
#include "seer/device/session.hpp"

#include <omp.h>

#include <Kokkos_Core.hpp>
#include <cstdlib>
#include <fstream>

#include "seer/device/binding.hpp"

namespace seer::device {
namespace {

void start_kokkos() {
#if defined(KOKKOS_ENABLE_CUDA)
  if (bound_device() < 0) return;
  Kokkos::initialize(Kokkos::InitializationSettings().set_device_id(bound_device()));
#else
  int argc = 0;
  Kokkos::initialize(argc, nullptr);
#endif
}

}  // namespace

Session::Session(int threads) {
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  if (threads == 0) threads = wanted != nullptr && *wanted != '\0' ? omp_get_max_threads() : 1;
  omp_set_dynamic(0);  // teams must have the requested size: oneDNN waits for all of their threads
  omp_set_num_threads(threads);
  if (!Kokkos::is_initialized()) start_kokkos();
}

Session::~Session() {
  if (Kokkos::is_initialized()) Kokkos::finalize();
}

bool kernels_need_device() {
#if defined(KOKKOS_ENABLE_CUDA)
  return true;
#else
  return false;
#endif
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
         ", threads a rank " + std::to_string(threads()) + ", Kokkos " + Kokkos::DefaultHostExecutionSpace::name();
}

}  // namespace seer::device
