// SPDX-License-Identifier: Apache-2.0
// XXH3 64-bit checksums of images in shards, of slabs in checkpoints, and of names that key random numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

struct XXH3_state_s;

namespace seer {

std::uint64_t checksum(const void* data, std::size_t bytes);
inline std::uint64_t checksum(std::string_view text) {
  return checksum(text.data(), text.size());
}

/// The same checksum for data that arrives in pieces, so large data need not be in memory at once.
class Checksum {
 public:
  Checksum();
  void add(const void* data, std::size_t bytes);
  std::uint64_t value() const;

 private:
  std::unique_ptr<XXH3_state_s, void (*)(XXH3_state_s*)> state_;
};

}  // namespace seer
