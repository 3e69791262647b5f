// SPDX-License-Identifier: Apache-2.0
#include "seer/device/binding.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#if defined(SEER_KERNELS_CUDA)
#include <cuda.h>
#include <dlfcn.h>
#endif

#include <atomic>
#include <fstream>
#include <string>

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"

namespace seer::device {
namespace {

std::atomic<int> bound{-1};

/// Formats CUDA's version numbers: 13010 is 13.1.
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// The number that a query writes to its first argument.
template <class Query, class... Arguments>
int number(const char* call, Query query, Arguments... arguments) {
  int value = 0;
  check(query(&value, arguments...), call);
  return value;
}
int driver_version() {
  return number("cudaDriverGetVersion", cudaDriverGetVersion);
}
int runtime_version() {
  return number("cudaRuntimeGetVersion", cudaRuntimeGetVersion);
}

/// A driver supports every runtime of its own major version and of older ones.
void require_driver() {
  const int driver = driver_version(), runtime = runtime_version();
  if (driver == 0) {
    throw Error(ExitCode::device, fmt::format("this node has no CUDA driver; CUDA {} needs one", version_text(runtime)),
                "start on a node with devices (sbatch --gpus-per-node), in containers with --nv or --gpus all; to "
                "run without devices, use the host build (cmake --preset host-release)");
  }
  if (driver / 1000 < runtime / 1000) {
    throw Error(ExitCode::device,
                fmt::format("the CUDA driver supports CUDA {}; this build needs {} or newer", version_text(driver),
                            version_text(runtime)),
                fmt::format("update the driver, or build with a CUDA {} toolkit", driver / 1000));
  }
}

int capability_of(int device) {
  constexpr const char* kCall = "cudaDeviceGetAttribute";
  return 10 * number(kCall, cudaDeviceGetAttribute, cudaDevAttrComputeCapabilityMajor, device) +
         number(kCall, cudaDeviceGetAttribute, cudaDevAttrComputeCapabilityMinor, device);
}

cudaDeviceProp properties_of(int device) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  return properties;
}

std::string bus_id_of(int device) {
  char text[32] = "";
  check(cudaDeviceGetPCIBusId(text, sizeof text, device), "cudaDeviceGetPCIBusId");
  return text;
}

/// The driver's own version, such as 550.54.15, which is not the CUDA version it supports.
std::string kernel_driver() {
  std::ifstream file("/sys/module/nvidia/version");
  std::string version;
  return file >> version ? " (" + version + ")" : "";
}

bool peers(int a, int b) {
  constexpr const char* kCall = "cudaDeviceCanAccessPeer";
  return number(kCall, cudaDeviceCanAccessPeer, a, b) != 0 && number(kCall, cudaDeviceCanAccessPeer, b, a) != 0;
}

/// NVLink has them, PCIe has not.
bool native_atomics(int a, int b) {
  return number("cudaDeviceGetP2PAttribute", cudaDeviceGetP2PAttribute, cudaDevP2PAttrNativeAtomicSupported, a, b) != 0;
}

}  // namespace

int bind_device() {
  require_driver();
  int visible = 0;
  const cudaError_t status = cudaGetDeviceCount(&visible);
  if (status != cudaErrorNoDevice) check(status, "cudaGetDeviceCount");
  if (status != cudaSuccess) {
    cudaGetLastError();
    visible = 0;
  }
  const int device = device_for(local_rank(), visible);
  const int capability = capability_of(device);
  if (!has_code_for(SEER_CUDA_ARCHITECTURES, capability)) {
    throw Error(ExitCode::device,
                fmt::format("device {} ({}) has compute capability {}.{}; this build has code for {}", device,
                            properties_of(device).name, capability / 10, capability % 10, SEER_CUDA_ARCHITECTURES),
                fmt::format("configure with -DSEER_CUDA_ARCHITECTURES={}", capability));
  }
  check(cudaSetDevice(device), "cudaSetDevice");
  // Create the context here, so that a refusal (exclusive mode, a device that fell off the bus) is reported here.
  check(cudaFree(nullptr), "cudaFree, the first call on the device");
  bound = device;
  return device;
}

int bound_device() {
  return bound;
}

void make_current() {
  thread_local int current = -1;
  const int device = bound;
  if (current == device) return;
  check(cudaSetDevice(device), "cudaSetDevice");
  current = device;
}

int compute_capability() {
  return bound < 0 ? 0 : capability_of(bound);
}

std::string device_id() {
  const int device = bound;
  if (device < 0) return "";
  // Parts of a device (MIG) share its bus id.
  std::string uuid;
  for (const char byte : properties_of(device).uuid.bytes)
    uuid += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return bus_id_of(device) + " " + uuid;
}

std::string describe_device() {
  const int device = bound;
  if (device < 0) return "";
  const auto properties = properties_of(device);
  const int devices = number("cudaGetDeviceCount", cudaGetDeviceCount);
  std::string text = fmt::format(
      "device {}: {}, {:.1f} GiB, {} multiprocessors, compute capability {}.{} (code for {}), PCI {}, driver CUDA "
      "{}{}, runtime {}",
      device, properties.name, static_cast<double>(properties.totalGlobalMem) / (1 << 30),
      properties.multiProcessorCount, properties.major, properties.minor, SEER_CUDA_ARCHITECTURES, bus_id_of(device),
      version_text(driver_version()), kernel_driver(), version_text(runtime_version()));
  if (devices > 1) {
    text += ", peer access " + pairs_line(devices, peers) + ", with NVLink's atomics " +
            pairs_line(devices, native_atomics);
  }
  return text;
}

}  // namespace seer::device

#if defined(SEER_KERNELS_CUDA)
// The driver's functions that Kokkos calls, looked up when it calls them. Linked to the driver's library, the program
// would not start where there is none, not even for --help.
namespace {
template <class... Arguments>
CUresult in_driver(const char* name, Arguments... arguments) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  auto* const found = library != nullptr ? dlsym(library, name) : nullptr;
  if (found == nullptr) return CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
  return reinterpret_cast<CUresult (*)(Arguments...)>(found)(arguments...);
}
}  // namespace

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
  return in_driver("cuCtxGetDevice", device);
}
CUresult CUDAAPI cuCtxPushCurrent(CUcontext context) {
  return in_driver("cuCtxPushCurrent_v2", context);
}
CUresult CUDAAPI cuStreamGetCtx(CUstream stream, CUcontext* context) {
  return in_driver("cuStreamGetCtx", stream, context);
}
#endif
