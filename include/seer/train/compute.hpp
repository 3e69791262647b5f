// SPDX-License-Identifier: Apache-2.0
// The device, the queue and the library (dnn) that a configuration asks for.
#pragma once

#include <cstddef>
#include <memory>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/tensor.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::train {

/// Collective. Where `parallel.device` makes the run compute. Error(device), agreed, if there is no such device.
device::Space agreed_space(const config::Config& config, const comm::Communicator& comm);

/// Collective. A queue where parallel.device is or means a device; null: the host's, or a planned one.
std::unique_ptr<device::DeviceQueue> make_queue(const config::Config& config, const comm::Communicator& comm);

/// Collective. Error(input), agreed, where some rank's cannot compute in this precision. On a device all ranks use the
/// root's choice of engines, which it keeps in the run folder.
std::shared_ptr<dnn::Backend> make_backend(const config::Config& config, const comm::Communicator& comm);

/// What a device's packed copies of weights may take: all of them are kept, but where parameters come and go with each
/// use a GiB.
std::size_t packed_weights_limit(const config::Config& config);

}  // namespace seer::train
