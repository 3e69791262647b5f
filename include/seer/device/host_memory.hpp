// SPDX-License-Identifier: Apache-2.0
// Memory that this process may still use: the machine's, and what its control group (Slurm's of the job, a container's)
// leaves of it. Linux kills without a word what goes beyond the group's limit.
#pragma once

#include <cstddef>
#include <string>

namespace seer::device {

struct HostMemory {
  std::size_t total = 0, available = 0;  ///< bytes; 0 where unknown
};

/// The least of the machine's and of every group's from this process's up to the root, versions 1 and 2. What a group
/// holds of files that are not in use counts as free, as MemAvailable counts it.
HostMemory host_memory(const std::string& proc = "/proc", const std::string& groups = "/sys/fs/cgroup");

}  // namespace seer::device
