// SPDX-License-Identifier: Apache-2.0
// Finds out from the environment which launcher started this process.
#pragma once

#include <optional>
#include <string>

#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"

namespace seer::comm {

struct ForeignLaunch {
  Error error;  ///< names the launcher and the remedy
  bool first;   ///< this process reports it: the launcher's first one, or any one if their number is unknown
};
/// For a process that is alone according to MPI. Returns Error(input) if a launcher started several processes that MPI
/// does not know: each would do all of the work, in the same files.
std::optional<ForeignLaunch> foreign_launch(const device::Environment& environment);

/// Call before MPI starts. Returns a hint if Open MPI may end this process with a message that names another reason;
/// else "".
std::string launch_hint(const device::Environment& environment);

/// The value of an environment variable; -1 if it is not set or is not a number.
int number(const char* text);

/// True for a rank of Open MPI's mpirun.
bool under_mpirun();

}  // namespace seer::comm
