// SPDX-License-Identifier: Apache-2.0
// Names and paths as text. File names are arbitrary bytes, but the texts in our own files are UTF-8. Text files that
// people write may begin with a byte order mark. No shell has expanded paths in configurations.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace seer {

bool is_utf8(std::string_view bytes);

/// Returns a name as UTF-8. Each byte that is not UTF-8 becomes an escape such as \xE9, and so does a backslash (\x5C)
/// that would begin such an escape. Everything else stays. Two different names never give the same text.
std::string utf8_name(std::string_view bytes);

/// Removes a UTF-8 byte order mark, which Windows editors write. Returns "", or for UTF-16 and UTF-32 a message: what
/// was found, what is wanted and how to convert it.
std::string remove_byte_order_mark(std::string& text);

/// Expands a leading "~" or "~user" as a shell does; nothing if there is no such user. Returns other paths unchanged.
std::optional<std::string> expand_home(const std::string& path);

/// The first `shown` names, such as "a, b, c and 4 more".
std::string few_names(std::span<const std::string> names, std::size_t shown = 5);

/// True if the path contains $NAME or ${NAME}, which no shell has replaced.
bool names_variable(const std::string& path);

}  // namespace seer
