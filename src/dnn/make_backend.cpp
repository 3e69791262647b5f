// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {

std::unique_ptr<Backend> make_backend(device::Space space, [[maybe_unused]] DeviceOptions options) {
#if defined(SEER_CUDA)
  if (space == device::Space::device) {
    const auto packed_weights_bytes = options.packed_weights_bytes;
    auto backend = make_device_backend(std::move(options));
    backend->set_packed_weights_limit(packed_weights_bytes);
    return backend;
  }
#endif
  return make_host_backend(space);
}

}  // namespace seer::dnn
