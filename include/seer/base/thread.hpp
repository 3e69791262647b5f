// SPDX-License-Identifier: Apache-2.0
// Threads that may be refused by the system.
#pragma once

#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "seer/base/error.hpp"

namespace seer {

/// Error(device) that says which thread the system refused.
template <class Function>
std::thread start_thread(const std::string& what, Function&& function) {
  try {
    return std::thread(std::forward<Function>(function));
  } catch (const std::system_error& error) {
    throw Error(ExitCode::device, "cannot start " + what + ": " + error.code().message(),
                "raise the limits of processes (ulimit -u) and of memory (ulimit -v), or use fewer ranks and threads");
  }
}

}  // namespace seer
