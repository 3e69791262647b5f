// SPDX-License-Identifier: Apache-2.0
// Measures the machine it runs on, as `seer plan` wants to know it.
#pragma once

#include <string>

#include "seer/comm/communicator.hpp"
#include "seer/config/machine.hpp"

namespace seer::plan {

struct CalibrateOptions {
  std::string shards;        ///< a data set to measure decoding and augmentation on; "": the defaults of Machine stay
  std::string folder = ".";  ///< where a file of 256 MiB is written for a moment
  double seconds = 0.15;     ///< for each figure
};

/// Collective: all ranks measure at once, as in training; the slowest counts. To be run on the ranks that a node of the
/// job will have.
config::Machine calibrate(const comm::Communicator& world, const CalibrateOptions& options);

}  // namespace seer::plan
