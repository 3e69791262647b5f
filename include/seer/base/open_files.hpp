// SPDX-License-Identifier: Apache-2.0
// How many files this process may hold open.
#pragma once

#include <cstddef>
#include <string>

namespace seer {

/// Raises the soft limit to the hard one; called once, at the start. Where that fails the limit stays as it is.
void raise_open_file_limit();

/// How many more may be opened, as things are.
std::size_t spare_open_files();

/// What to do about "Too many open files", where an error's text says so; else "".
std::string open_files_remedy(const std::string& error);

}  // namespace seer
