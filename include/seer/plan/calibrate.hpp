// SPDX-License-Identifier: Apache-2.0
// Measures this machine and fills in a machine file for `seer plan`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/config/machine.hpp"

namespace seer::plan {

struct CalibrateOptions {
  std::string shards;  ///< data set on which decoding and augmentation are measured; "": the defaults of Machine stay
  std::string folder = ".";  ///< a file of 256 MiB is written here and removed
  double seconds = 0.15;     ///< per figure; with the default, 7 and 14 whole updates are timed, with less fewer
};

/// Collective. All ranks measure at once, as in training; the slowest counts. Run it on as many ranks as a node of the
/// job will have.
config::Machine calibrate(const comm::Communicator& world, const CalibrateOptions& options);

/// Collective. Fills in what `seer plan` needs to know about these shards: mean image size, and pixels that one core
/// decodes and crops per second, from a second or two of the program's own loader.
void measure_data(const comm::Communicator& world, const config::Config& config, config::Machine& machine);

/// Collective. Fills in what the shards tell about the images: mean size and number. If the machine file describes this
/// processor and only estimates how fast it decodes and crops, measures that too. Adds to `notes` what the plan's data
/// figures are based on. Returns the number of images, 0 if there are no shards. The root alone does the work: on the
/// other ranks `machine` stays and the result is 0.
std::uint64_t look_at_data(const comm::Communicator& world, const config::Config& config, config::Machine& machine,
                           std::vector<std::string>& notes);

}  // namespace seer::plan
