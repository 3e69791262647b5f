// SPDX-License-Identifier: Apache-2.0
// What pack reads from the names of files and folders. Private to pack*.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace seer::data {

/// "a/./b//c" gives a, b, c; an absolute path begins with a part "/".
std::vector<std::string_view> parts_of(std::string_view path);

/// "n01.tar.gz" (with or without folders before it) gives "n01"; "" where the name is not that of an archive.
std::string_view archive_stem(std::string_view name);

/// Not empty: a file or folder of this name is left out unless hidden ones are wanted; the text groups them in counts.
std::string hidden_kind(std::string_view part);

/// .jpg, .jpeg, .png or .webp, in any case.
bool is_image_name(std::string_view name);

/// train, test, val and their like, in any case.
bool is_split_name(std::string_view folder);

}  // namespace seer::data
