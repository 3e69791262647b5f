// SPDX-License-Identifier: Apache-2.0
#include "seer/train/compute.hpp"

#include <limits>
#include <string>
#include <utility>

#include "seer/device/binding.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/train/precision.hpp"

namespace seer::train {
namespace {

/// Collective. Ranks agree on the engines over a separate communicator, whose messages do not count as the update's.
dnn::DeviceOptions device_options(const config::Config& config, const comm::Communicator& comm) {
  const auto talk = std::make_shared<comm::Communicator>(comm.duplicate().named("engines"));
  return {.tf32 = config.precision.tf32,
          .deterministic = config.parallel.deterministic || config.guard.replay_every > 0,
          .float_weight_gradients = config.precision.float_weight_gradients,
          .cache_dir = config.log.run_dir + "/cache",
          .writes_cache = talk->is_root(),
          .agree =
              [talk](const std::string& mine) {
                auto text = mine;
                talk->broadcast(text);
                return text;
              },
          .packed_weights_bytes = packed_weights_limit(config)};
}

}  // namespace

device::Space agreed_space(const config::Config& config, const comm::Communicator& comm) {
  auto space = device::Space::host;
  comm::agree(comm, "choosing the device", [&] { space = device::chosen_space(config.parallel.device); });
  return space;
}

std::unique_ptr<device::DeviceQueue> make_queue(const config::Config& config, const comm::Communicator& comm) {
  std::unique_ptr<device::DeviceQueue> queue;
  if (comm.ledger() != nullptr || agreed_space(config, comm) == device::Space::host) return queue;
  comm::agree(comm, "making a device queue", [&] { queue = std::make_unique<device::DeviceQueue>(); });
  return queue;
}

std::shared_ptr<dnn::Backend> make_backend(const config::Config& config, const comm::Communicator& comm) {
  std::shared_ptr<dnn::Backend> backend;
  const auto space = agreed_space(config, comm);
  dnn::DeviceOptions options;
  if (space == device::Space::device) options = device_options(config, comm);
  comm::agree(comm, "choosing the precision", [&] {
    backend = dnn::make_backend(space, options);
    check_precision(config.precision, *backend);
  });
  return backend;
}

std::size_t packed_weights_limit(const config::Config& config) {
  constexpr std::size_t kSome = std::size_t{1} << 30;
  return config.parallel.shard == "parameters" ? kSome : std::numeric_limits<std::size_t>::max();
}

}  // namespace seer::train
