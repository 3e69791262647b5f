// SPDX-License-Identifier: Apache-2.0
// What pack derives from the names of files and folders. Private to pack*.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace seer::data {

/// "a/./b//c" gives a, b, c. The first part of an absolute path is "/".
std::vector<std::string_view> parts_of(std::string_view path);

/// "n01.tar.gz" (with or without folders before it) gives "n01"; "" if the name is not that of an archive.
std::string_view archive_stem(std::string_view name);

/// If not empty, a file or folder of this name counts as hidden and is left out by default. The text is the kind under
/// which it is counted.
std::string hidden_kind(std::string_view part);

/// True for .jpg, .jpeg, .png or .webp, in upper or lower case.
bool is_image_name(std::string_view name);

/// True for train, test, val and similar names, in upper or lower case.
bool is_split_name(std::string_view folder);

}  // namespace seer::data
