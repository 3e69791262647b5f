// SPDX-License-Identifier: Apache-2.0
#include "seer/base/random.hpp"

#include <Random123/philox.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace seer {

Random::Random(std::uint64_t seed, Purpose purpose, std::uint64_t a, std::uint32_t b) {
  // The 64 bits of key hold the seed. The first 32 of the 128 bits of counter count blocks within a stream (2^34
  // draws); the rest name the stream. The purpose takes the upper byte of b's word: crops and attempts stay far below
  // 2^24.
  key_ = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  counter_ = {0, static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(a >> 32),
              (static_cast<std::uint32_t>(purpose) << 24) ^ b};
}

std::uint32_t Random::bits() {
  if (used_ == 4) {
    const auto block = r123::Philox4x32()({{counter_[0], counter_[1], counter_[2], counter_[3]}}, {{key_[0], key_[1]}});
    std::copy(block.begin(), block.end(), block_.begin());
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

double Random::uniform() {
  const std::uint64_t high = bits() >> 5, low = bits() >> 6;
  return static_cast<double>((high << 26) | low) * 0x1p-53;
}

std::uint64_t Random::below(std::uint64_t n) {
  const std::uint64_t limit = ~std::uint64_t{0} - ~std::uint64_t{0} % n;
  for (;;) {
    const std::uint64_t high = bits(), draw = (high << 32) | bits();
    if (draw < limit) return draw % n;
  }
}

double Random::normal() {
  if (has_spare_) {
    has_spare_ = false;
    return spare_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

}  // namespace seer
