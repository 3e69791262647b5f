// SPDX-License-Identifier: Apache-2.0
// The weights that a new run begins with: those of finetune.from or model.init_from.
#pragma once

#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/run/trainer.hpp"

namespace seer::run {

/// Collective. True if it is certain, before anything is opened, that the run has no checkpoint to go on from.
bool starts_anew(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);

/// Collective. Reads names and attributes of the weights, if there are any. Error(input), agreed, if their trunk is not
/// that of [model]; with finetune.classifier = "keep" also if their classifier is for other classes than `classes`, or
/// for the same in another order. Where one of the two has no names, nothing is compared. Error(file): no such file.
void check_source(const config::Config& config, const comm::Communicator& comm,
                  const std::vector<std::string>& classes);

/// "class 3 is "cat" there and "dog" in data.shards"; "" if they are equal, or if one of the two is empty.
std::string other_classes(const std::vector<std::string>& there, const std::vector<std::string>& here);

}  // namespace seer::run
