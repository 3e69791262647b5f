// SPDX-License-Identifier: Apache-2.0
#include "seer/base/checksum.hpp"

#include <xxhash.h>

#include <new>

namespace seer {

std::uint64_t checksum(const void* data, std::size_t bytes) {
  return XXH3_64bits(data, bytes);
}

Checksum::Checksum() : state_(XXH3_createState(), [](XXH3_state_s* state) { XXH3_freeState(state); }) {
  if (!state_) throw std::bad_alloc();
  XXH3_64bits_reset(state_.get());
}

void Checksum::add(const void* data, std::size_t bytes) {
  XXH3_64bits_update(state_.get(), data, bytes);
}

std::uint64_t Checksum::value() const {
  return XXH3_64bits_digest(state_.get());
}
}  // namespace seer
