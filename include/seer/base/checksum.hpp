// SPDX-License-Identifier: Apache-2.0
// XXH3 64-bit checksums: of images in shards, of slabs in checkpoints, of names that key random numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace seer {

std::uint64_t checksum(const void* data, std::size_t bytes);
inline std::uint64_t checksum(std::string_view text) {
  return checksum(text.data(), text.size());
}

}  // namespace seer
