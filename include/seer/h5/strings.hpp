// SPDX-License-Identifier: Apache-2.0
// Reads part of a list of texts, such as the names of a shard's images.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::h5 {

/// Texts [begin, begin + count) of a data set made by File::create_strings(). Opens the file serially. Error(file).
std::vector<std::string> read_strings(const std::string& path, const std::string& name, std::uint64_t begin,
                                      std::uint64_t count);

}  // namespace seer::h5
