// SPDX-License-Identifier: Apache-2.0
// Names of files are bytes; the texts in our own files are UTF-8. And text files that people write may begin with a
// mark.
#pragma once

#include <string>
#include <string_view>

namespace seer {

bool is_utf8(std::string_view bytes);

/// A name as UTF-8. Each byte that is no UTF-8 becomes an escape such as \xE9. So does a backslash (\x5C) where what
/// follows would read as an escape. Everything else stays. Two different names never give the same text.
std::string utf8_name(std::string_view bytes);

/// Removes a UTF-8 byte order mark, as editors of Windows write. Returns "", or, of UTF-16 and UTF-32: what was found,
/// what is wanted and how to get it.
std::string remove_byte_order_mark(std::string& text);

}  // namespace seer
