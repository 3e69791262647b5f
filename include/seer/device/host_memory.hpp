// SPDX-License-Identifier: Apache-2.0
// Memory that this process may still use: the machine's, within the limit of its control group (that of the Slurm job
// or the container). Linux kills a process above the group's limit without a message.
#pragma once

#include <cstddef>
#include <string>

namespace seer::device {

struct HostMemory {
  std::size_t total = 0, available = 0;  ///< bytes; 0 where unknown
};

/// Returns the minimum over the machine and all control groups (versions 1 and 2) from this process's group up to the
/// root. A group's inactive file cache counts as free, as in MemAvailable.
HostMemory host_memory(const std::string& proc = "/proc", const std::string& groups = "/sys/fs/cgroup");

}  // namespace seer::device
