// SPDX-License-Identifier: Apache-2.0
#include "record.hpp"

#if !defined(NDEBUG)

#include <cuda_runtime_api.h>

#include "seer/base/error.hpp"

namespace seer::comm {

void expect_host(const void* data) {
  if (data == nullptr) return;
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    cudaGetLastError();  // no driver or no device, so this is not device memory
    return;
  }
  ensure(attributes.type != cudaMemoryTypeDevice, "MPI was given memory of a device");
}

}  // namespace seer::comm

#endif
