// SPDX-License-Identifier: Apache-2.0
#include "seer/base/checksum.hpp"

#include <xxhash.h>

namespace seer {

std::uint64_t checksum(const void* data, std::size_t bytes) {
  return XXH3_64bits(data, bytes);
}

}  // namespace seer
