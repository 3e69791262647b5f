// SPDX-License-Identifier: Apache-2.0
// The names that shards store with their images.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/data/shard.hpp"

namespace seer::data {

/// Names of images [first, first + count), for example "n01440764/4711.JPEG". Images of shards without names have "".
/// Not collective; opens each shard once. Error(file).
std::vector<std::string> image_names(const DataSet& data, std::uint64_t first, std::uint64_t count);

}  // namespace seer::data
