// SPDX-License-Identifier: Apache-2.0
// The limit on files that this process may hold open.
#pragma once

#include <cstddef>
#include <string>

namespace seer {

/// Raises the soft limit to the hard limit. Called once, at the start. If that fails, the limit stays as it is.
void raise_open_file_limit();

/// Number of files that may still be opened now.
std::size_t spare_open_files();

/// Returns what to do about "Too many open files" if the error's text says so; else "".
std::string open_files_remedy(const std::string& error);

}  // namespace seer
