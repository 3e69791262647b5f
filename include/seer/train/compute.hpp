// SPDX-License-Identifier: Apache-2.0
// Makes the device queue and the library (dnn) that a configuration asks for.
#pragma once

#include <cstddef>
#include <memory>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/tensor.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::train {

/// Collective. Returns where the run computes, by `parallel.device`. Error(device), agreed, if there is no such device.
device::Space agreed_space(const config::Config& config, const comm::Communicator& comm);

/// Collective. Returns a queue if the run computes on a device; null on the host and on a planned machine.
std::unique_ptr<device::DeviceQueue> make_queue(const config::Config& config, const comm::Communicator& comm);

/// Collective. Error(input), agreed, if some rank cannot compute in the configured precision. On a device, all ranks
/// use the root's choice of engines, which the root keeps in the run folder.
std::shared_ptr<dnn::Backend> make_backend(const config::Config& config, const comm::Communicator& comm);

/// Limit in bytes for packed copies of weights on a device. There is none, except with shard = "parameters", where
/// parameters come and go with each use: then it is 1 GiB.
std::size_t packed_weights_limit(const config::Config& config);

}  // namespace seer::train
