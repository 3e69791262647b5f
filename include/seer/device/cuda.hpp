// SPDX-License-Identifier: Apache-2.0
// For the device bodies of all modules: CUDA's status codes as errors, a queue's stream. Device builds only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <source_location>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Error(device) naming the call and CUDA's own words, with a remedy where there is one. Faults of earlier asynchronous
/// work also come out here.
void check(cudaError_t status, const char* call, std::source_location where = std::source_location::current());

inline cudaStream_t stream_of(const Queue& queue) {
  return static_cast<cudaStream_t>(queue.stream);
}

/// Every new thread begins on device 0, whatever the process is bound to: a thread that calls CUDA, cuDNN, cuBLASLt or
/// NCCL calls this first. Costs a look at a flag after the first time.
void make_current();

/// What memory.cpp is made of in a device build.
void* device_allocate(std::size_t bytes);
/// Waits until the device has done what it was handed before.
void device_free(void* data) noexcept;
/// Synchronises.
void device_zero(void* data, std::size_t bytes);
std::size_t device_available_bytes();
std::size_t device_total_bytes();

}  // namespace seer::device
