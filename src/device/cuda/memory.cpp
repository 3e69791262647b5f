// SPDX-License-Identifier: Apache-2.0
// Device memory, pinned memory, copies, and CUDA's errors.
#include <fmt/format.h>

#include <cstring>
#include <string>

#include "../device_memory.hpp"
#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"

namespace seer::device {
namespace {

std::string remedy_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return kLessDeviceMemory;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
      return "the device is faulty: exclude its node (sbatch --exclude) and report it";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return "earlier work on the device failed: run again with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer";
    case cudaErrorDevicesUnavailable:
      return "another process may use the device (exclusive mode): start one rank per device; nvidia-smi shows the "
             "processes";
    case cudaErrorNoDevice:
      return "request devices from the scheduler (--gpus-per-node) and check CUDA_VISIBLE_DEVICES";
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return "update the driver, or build with an older CUDA toolkit";
    case cudaErrorSystemNotReady:
      return "the fabric manager of the node may be down: check systemctl status nvidia-fabricmanager";
    default:
      return "";
  }
}

}  // namespace

void check(cudaError_t status, const char* call, std::source_location where) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // otherwise a later check of the last error would blame another call
  throw Error(ExitCode::device, fmt::format("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status)),
              remedy_of(status), where);
}

void* device_allocate(std::size_t bytes) {
  make_current();
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, bytes);
  if (status != cudaErrorMemoryAllocation) check(status, "cudaMalloc");
  if (status != cudaSuccess) cudaGetLastError();
  return data;
}

void device_free(void* data) noexcept {
  // At the program's end CUDA may be gone before the last buffer, and its memory with it.
  if (data != nullptr && cudaFree(data) != cudaSuccess) cudaGetLastError();
}

void device_zero(void* data, std::size_t bytes) {
  check(cudaMemset(data, 0, bytes), "cudaMemset");
  // cudaMemset returns before it is done, and our streams do not wait for the default one.
  check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

SystemMemory device_memory() {
  make_current();
  SystemMemory memory;
  check(cudaMemGetInfo(&memory.available, &memory.total), "cudaMemGetInfo");
  return memory;
}

void device_copy(const Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes) {
  const bool from_device = from_space == Space::device, to_device = to_space == Space::device;
  const auto kind = from_device ? (to_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost)
                                : (to_device ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost);
  make_current();
  check(cudaMemcpyAsync(to, from, bytes, kind, stream_of(queue)), "cudaMemcpyAsync");
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  make_current();
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ExitCode::device, fmt::format("out of host memory: cannot allocate a pinned block of {} bytes", bytes),
                "use fewer ranks a node or a smaller batch, and ask the scheduler for more memory");
  }
  check(status, "cudaHostAlloc");
  data_.reset(data);
  std::memset(data, 0, bytes);
}

void PinnedBuffer::Free::operator()(void* data) const noexcept {
  if (cudaFreeHost(data) != cudaSuccess) cudaGetLastError();
}

}  // namespace seer::device
