// SPDX-License-Identifier: Apache-2.0
// Measures the machine it runs on, as `seer plan` wants to know it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/config/machine.hpp"

namespace seer::plan {

struct CalibrateOptions {
  std::string shards;        ///< a data set to measure decoding and augmentation on; "": the defaults of Machine stay
  std::string folder = ".";  ///< where a file of 256 MiB is written for a moment
  double seconds = 0.15;     ///< for each figure; whole updates: 7 and 14 of them, fewer where this is less
};

/// Collective: all ranks measure at once, as in training; the slowest counts. To be run on the ranks that a node of the
/// job will have.
config::Machine calibrate(const comm::Communicator& world, const CalibrateOptions& options);

/// Puts into the machine what the images of these shards need: mean size and, of a core, pixels decoded and cut a
/// second, from a second or two of the program's own loader. Collective.
void measure_data(const comm::Communicator& world, const config::Config& config, config::Machine& machine);

/// Collective. What is known of the configuration's images without being told: mean size and number from the shards,
/// and where the machine file is of this very processor and has estimates for their speed, the speed. Says in `notes`
/// what the plan's figures on data rest on. Returns the images of the data set, 0 where there are no shards. The root
/// looks, and only there is anything changed.
std::uint64_t look_at_data(const comm::Communicator& world, const config::Config& config, config::Machine& machine,
                           std::vector<std::string>& notes);

/// What a collective that ranks wait for costs them beside its planned time, seconds: from updates of RegNetY-800MF
/// whose BatchNorm is synchronised, beside such whose is not. Ranks are never equally fast, and those that share a core
/// take turns. Collective.
double meeting_beside_message_s(const config::Machine& machine, const comm::Communicator& world, int updates);

/// How much longer convolutions and products take in updates of RegNetY-800MF than they are planned on this machine.
/// Collective.
double products_beside_plan(const config::Machine& machine, const std::string& precision,
                            const comm::Communicator& world, int updates);

}  // namespace seer::plan
