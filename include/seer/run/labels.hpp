// SPDX-License-Identifier: Apache-2.0
// What a method that reads labels needs from its data and its source of weights, before the model can be made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/shard.hpp"

namespace seer::run {

struct Task {
  config::Config config;
  std::vector<std::string> classes;  ///< that data.shards name, if the method reads labels
};

/// Collective. Returns the classes and the configuration with finetune.classes, if that is 0, as data.shards name them,
/// and with head.dims as in finetune.from if layers of its projection head are kept. Other methods' configurations stay
/// as they are. Reads all labels of data.shards, each rank a part. Error(input), agreed, if images have no class, or
/// several with finetune.targets = "single"; if there is one class only; for classes outside; for fewer images than
/// ranks.
Task complete(const config::Config& config, const comm::Communicator& comm);

/// For each class of the test set its number among `classes`, by name. The identity if no set names classes.
/// Error(input) for names that `classes` lack, or if only one set has names.
std::vector<std::int32_t> same_classes(const std::vector<std::string>& classes, const data::DataSet& test);

}  // namespace seer::run
