// SPDX-License-Identifier: Apache-2.0
// What started this process, as its environment tells.
#pragma once

#include <optional>
#include <string>

#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"

namespace seer::comm {

struct ForeignLaunch {
  Error error;  ///< names the launcher and the remedy
  bool first;   ///< this process speaks: the launcher's first, or any where nobody knows how many there are
};
/// For a process that MPI says is alone: Error(input) where a launcher started several, which MPI knows nothing of.
/// Each would do all of the work, in the same files.
std::optional<ForeignLaunch> foreign_launch(const device::Environment& environment);

/// Before MPI starts: what to know where Open MPI may end this process with a message that names another reason. ""
/// where there is nothing to say.
std::string launch_hint(const device::Environment& environment);

/// True for a rank of Open MPI's mpirun.
bool under_mpirun();

}  // namespace seer::comm
