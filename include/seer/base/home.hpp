// SPDX-License-Identifier: Apache-2.0
// For paths that no shell has expanded.
#pragma once

#include <optional>
#include <string>

namespace seer {

/// Expands a leading "~" or "~user" as a shell does; nothing if there is no such user. Returns other paths unchanged.
std::optional<std::string> expand_home(const std::string& path);

/// True if the path contains $NAME or ${NAME}, which no shell has replaced.
bool names_variable(const std::string& path);

}  // namespace seer
