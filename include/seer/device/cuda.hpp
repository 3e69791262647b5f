// SPDX-License-Identifier: Apache-2.0
// Helpers for the CUDA code of all modules: CUDA's status codes as errors, a queue's stream. Device builds only.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <source_location>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Throws Error(device) with the call and CUDA's own message, and a remedy if one is known. Faults of earlier
/// asynchronous work may appear here too.
void check(cudaError_t status, const char* call, std::source_location where = std::source_location::current());

inline cudaStream_t stream_of(const Queue& queue) {
  return static_cast<cudaStream_t>(queue.stream);
}

/// Makes the bound device current in this thread. A new thread starts on device 0, whatever device the process is bound
/// to, so each thread calls this before it uses CUDA, cuDNN, cuBLASLt or NCCL. After the first call it only checks a
/// flag.
void make_current();

/// The functions that memory.cpp uses in a device build.
void* device_allocate(std::size_t bytes);
/// Waits until the device has finished all earlier work.
void device_free(void* data) noexcept;
/// Synchronises.
void device_zero(void* data, std::size_t bytes);
std::size_t device_available_bytes();
std::size_t device_total_bytes();

}  // namespace seer::device
