// SPDX-License-Identifier: Apache-2.0
// Device memory, pinned memory, and CUDA's errors.
#include <fmt/format.h>

#include <cstring>
#include <string>

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/pinned.hpp"

namespace seer::device {
namespace {

constexpr const char* kLessMemory =
    "set parallel.recompute = \"auto\", with parallel.memory_budget_bytes below what is free; parallel.shard on more "
    "ranks; or a smaller batch";

std::string remedy_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return kLessMemory;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorHardwareStackError:
      return "the device is faulty: leave its node out (sbatch --exclude) and report it";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
      return "earlier work on the device failed: run again with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer";
    case cudaErrorDevicesUnavailable:
      return "another process may hold the device (exclusive mode): one rank a device, nvidia-smi tells";
    case cudaErrorNoDevice:
      return "ask the scheduler for devices (--gpus-per-node) and look at CUDA_VISIBLE_DEVICES";
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      return "update the driver, or build with an older CUDA toolkit";
    case cudaErrorSystemNotReady:
      return "the node's fabric manager may not run: systemctl status nvidia-fabricmanager";
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
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
    throw Error(total > 0 && bytes > total ? ExitCode::input : ExitCode::device,
                fmt::format("out of device memory: {} bytes wanted in one block, {} free of {}", bytes, free, total),
                kLessMemory);
  }
  check(status, "cudaMalloc");
  return data;
}

void device_free(void* data) noexcept {
  // At the program's end CUDA may be gone before the last buffer, and its memory with it.
  if (cudaFree(data) != cudaSuccess) cudaGetLastError();
}

void device_zero(void* data, std::size_t bytes) {
  check(cudaMemset(data, 0, bytes), "cudaMemset");
  // cudaMemset returns before it is done, and our streams do not wait for the default one.
  check(cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize");
}

std::size_t device_available_bytes() {
  make_current();
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

std::size_t device_total_bytes() {
  make_current();
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return total;
}

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  make_current();
  const cudaError_t status = cudaHostAlloc(&data_, bytes, cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ExitCode::device, fmt::format("out of host memory: {} bytes wanted in one pinned block", bytes),
                "use fewer ranks a node or a smaller batch, and ask the scheduler for more memory");
  }
  check(status, "cudaHostAlloc");
  std::memset(data_, 0, bytes);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr && cudaFreeHost(data_) != cudaSuccess) cudaGetLastError();
}

}  // namespace seer::device
