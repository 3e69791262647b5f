// SPDX-License-Identifier: Apache-2.0
// Paths that no shell has seen.
#pragma once

#include <optional>
#include <string>

namespace seer {

/// The path with a leading "~" or "~user" put in full, as the shell does it where it looks; nothing where there is no
/// such user. Other paths as they are.
std::optional<std::string> expand_home(const std::string& path);

/// Whether $NAME or ${NAME} stands in it, which no shell has replaced.
bool names_variable(const std::string& path);

}  // namespace seer
