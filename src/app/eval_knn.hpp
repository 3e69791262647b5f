// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "seer/app/command.hpp"

namespace seer::app {
Run add_eval_knn(CLI::App& command);
}  // namespace seer::app
