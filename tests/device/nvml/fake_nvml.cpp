// SPDX-License-Identifier: Apache-2.0
// A stand-in for libnvidia-ml.so.1 with one device, which uses 1.5 J between two questions.
#include <cstring>

namespace {
int running = 0;
unsigned long long used_mj = 1000;
int device = 0;
}  // namespace

extern "C" {
int nvmlInit_v2() {
  ++running;
  return 0;
}
int nvmlShutdown() {
  --running;
  return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** handle) {
  if (running == 0 || std::strcmp(bus_id, "0000:1B:00.0") != 0) return 6;  // NVML_ERROR_NOT_FOUND
  *handle = &device;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* millijoules) {
  if (running == 0 || handle != &device) return 2;  // NVML_ERROR_INVALID_ARGUMENT
  *millijoules = used_mj += 1500;
  return 0;
}
}
