// SPDX-License-Identifier: Apache-2.0
// HDF5 1.10 crashes, hangs or asks for absurd memory on some damaged files (published CVEs among them), and one bad
// shard must not end a run. So a forked process with limits first opens each file of unknown origin.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "seer/h5/file.hpp"

namespace seer::h5 {

/// Opens `path` serially in a child process, runs `work` there and returns its result. The child has a limit on memory
/// and time and never touches MPI. Throws Error(file) if `work` throws or the child dies.
std::string trial(const std::string& path, const std::function<std::string(const File&)>& work);

/// The same for many files, one after another. One child process handles hundreds of them, and the time limit applies
/// to each file. Calls `done` with a file's index in `paths` and its result. Stops at the first error.
void trial_each(const std::vector<std::string>& paths, const std::function<std::string(const File&)>& work,
                const std::function<void(std::size_t, const std::string&)>& done);

}  // namespace seer::h5
