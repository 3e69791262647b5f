// SPDX-License-Identifier: Apache-2.0
// seer bench step --layers: what the net's blocks take inside an update, and what their convolutions take alone.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/recorder.hpp"
#include "seer/train/learner.hpp"

namespace seer::app {

struct Layers {
  std::vector<device::Recorder::Row> rows = {};  ///< of a recorder by shape, rank 0
  std::map<std::string, double> alone_ms = {};   ///< of one call of a convolution, by its label
  std::int64_t updates = 1;
  int segments = 0;  ///< of the trunk; those of the heads follow
};

/// Collective. The best of some calls of each of the trunk's convolutions, alone on its rank, all ranks at once.
/// Packing of weights is left out: inside the net, it counts as what is not a convolution.
std::map<std::string, double> measure_alone(const comm::Communicator& world, const config::Config& config,
                                            const train::Learner& learner);

nlohmann::json to_json(const Layers& layers);
/// A table by segment, and one by convolution, the longest first. Of an update. No final newline.
std::string to_table(const Layers& layers);

}  // namespace seer::app
