// SPDX-License-Identifier: Apache-2.0
#include "seer/device/copy.hpp"

#include <cstring>

#include "seer/base/error.hpp"
#if defined(SEER_CUDA)
#include "seer/device/cuda.hpp"
#else
#include "seer/device/stand_in.hpp"
#endif

namespace seer::device {

void copy(Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes) {
  if (bytes == 0 || queue.only_plans(static_cast<std::int64_t>(2 * bytes), DType::u8)) return;
  ensure(from_space != Space::planned && to_space != Space::planned, "planned memory is copied on a real queue");
  if (queue.space == Space::host) {
    ensure(from_space == Space::host && to_space == Space::host, "device memory is copied on a host queue");
    std::memcpy(to, from, bytes);
    return;
  }
#if defined(SEER_CUDA)
  const bool from_device = from_space == Space::device, to_device = to_space == Space::device;
  const auto kind = from_device ? (to_device ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost)
                                : (to_device ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost);
  make_current();
  check(cudaMemcpyAsync(to, from, bytes, kind, stream_of(queue)), "cudaMemcpyAsync");
#else
  stand_in_copy(queue, from, from_space, to, to_space, bytes);
#endif
}

}  // namespace seer::device
