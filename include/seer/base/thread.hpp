// SPDX-License-Identifier: Apache-2.0
// Starts threads, which the system may refuse.
#pragma once

#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "seer/base/error.hpp"

namespace seer {

/// Starts a thread. Throws Error(device) that names it (`what`) if the system refuses.
template <class Function>
std::thread start_thread(const std::string& what, Function&& function) {
  try {
    return std::thread(std::forward<Function>(function));
  } catch (const std::system_error& error) {
    throw Error(ExitCode::device, "cannot start " + what + ": " + error.code().message(),
                "raise the limits on processes (ulimit -u) and memory (ulimit -v), or use fewer ranks and threads");
  }
}

}  // namespace seer
