// SPDX-License-Identifier: Apache-2.0
// Shared by the two halves of `seer bench comm`: MPI on the host, NCCL on devices.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::app {

struct CommOptions {
  std::int64_t min_bytes = 4096;
  std::int64_t max_bytes = std::int64_t{256} << 20;
  double seconds = 0.2;
  bool device = false, json = false;
};

struct Measured {
  std::string name;
  std::int64_t bytes;
  double ms;  ///< median over the repetitions, each the slowest rank's time
  std::int64_t repetitions;
  double gb_per_s() const { return ms > 0 ? static_cast<double>(bytes) / ms / 1e6 : 0; }
};

/// Times a call that all ranks make at once.
Measured measure(const comm::Communicator& world, const std::string& name, std::int64_t bytes, double seconds,
                 const std::function<void()>& call);

/// `seer bench comm --device`. Error(device) if there is no device.
int bench_comm_device(const comm::Communicator& world, const CommOptions& options);

}  // namespace seer::app
