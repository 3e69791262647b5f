// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::app {

/// Collective: rank 0 reads the file ("" = defaults only), all ranks parse the same text. Error(input), agreed.
config::Config load_config(const comm::Communicator& world, const std::string& path,
                           const std::vector<std::string>& overrides);

}  // namespace seer::app
