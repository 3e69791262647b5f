// SPDX-License-Identifier: Apache-2.0
// Helpers for the CUDA code of all modules: CUDA's status codes as errors, handles, a queue's stream. Device builds
// only.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <source_location>
#include <type_traits>

#include "seer/device/queue.hpp"

namespace seer::device {

/// Throws Error(device) with the call and CUDA's own message, and a remedy if one is known. Faults of earlier
/// asynchronous work may appear here too.
void check(cudaError_t status, const char* call, std::source_location where = std::source_location::current());

/// Owns what a C library has created: unique_ptr of a handle that `kDestroy` destroys.
template <auto kDestroy>
struct Destroy {
  void operator()(auto* made) const { kDestroy(made); }
};
template <class Handle, auto kDestroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy>>;

inline cudaStream_t stream_of(const Queue& queue) {
  return static_cast<cudaStream_t>(queue.stream);
}

/// Makes the bound device current in this thread. A new thread starts on device 0, whatever device the process is bound
/// to, so each thread calls this before it uses CUDA, cuDNN, cuBLASLt or NCCL. After the first call it only checks a
/// flag.
void make_current();

}  // namespace seer::device
