// SPDX-License-Identifier: Apache-2.0
// HDF5 1.10 crashes, hangs or asks for absurd memory on some damaged files (published CVEs among them), and a run must
// not die of one bad shard. So a file of unknown origin is first opened by a forked process with limits.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "seer/h5/file.hpp"

namespace seer::h5 {

/// Opens `path` serially in a child process, runs `work` there and returns its result. The child has a limit on memory
/// and time and never touches MPI. Error(file): whatever `work` threw, or that the child died.
std::string trial(const std::string& path, const std::function<std::string(const File&)>& work);

/// The same of many files, one after another, with a child process for hundreds of them; each file has the limit on
/// time to itself. `done` gets a file's place in `paths` and its result. Ends with the first error.
void trial_each(const std::vector<std::string>& paths, const std::function<std::string(const File&)>& work,
                const std::function<void(std::size_t, const std::string&)>& done);

}  // namespace seer::h5
