// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "seer/base/random.hpp"
#include "seer/data/source.hpp"

namespace seer::data {
namespace {

constexpr int kRounds = 8;
constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ULL;

/// splitmix64's finaliser: every bit of the input reaches every bit of the output.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

std::uint64_t derive(std::uint64_t key, std::uint64_t index) {
  return mix(key + kGolden * (index + 1));
}

/// Half the number of bits of the smallest power of four that is at least n.
int half_bits(std::uint64_t n) {
  return std::max(1, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
}

/// One pass of a Feistel network over two halves of `bits` bits, with the round keys first, first + step, ...
std::uint64_t feistel(std::uint64_t value, int bits, std::uint64_t key, int first, int step) {
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  std::uint64_t left = value >> bits, right = value & mask;
  for (int round = 0; round < kRounds; ++round) {
    const auto round_key = derive(key, static_cast<std::uint64_t>(first + step * round));
    left = std::exchange(right, left ^ (mix(right ^ round_key) & mask));
  }
  return (left << bits) | right;
}

}  // namespace

std::uint64_t permute(std::uint64_t value, std::uint64_t n, std::uint64_t key) {
  const int bits = half_bits(n);
  do value = feistel(value, bits, key, 0, 1);
  while (value >= n);
  return value;
}

std::uint64_t permute_back(std::uint64_t value, std::uint64_t n, std::uint64_t key) {
  // With the halves exchanged and the keys in the opposite order, the network is its own inverse.
  const int bits = half_bits(n);
  const auto exchanged = [bits](std::uint64_t v) { return v >> bits | (v & ((std::uint64_t{1} << bits) - 1)) << bits; };
  do value = exchanged(feistel(exchanged(value), bits, key, kRounds - 1, -1));
  while (value >= n);
  return value;
}

Sampler::Sampler(std::uint64_t images, std::uint64_t seed, std::uint64_t block_images, std::uint64_t window_blocks)
    : images_(images),
      seed_(seed),
      block_images_(std::min(std::max<std::uint64_t>(block_images, 1), std::max<std::uint64_t>(images, 1))),
      window_blocks_(std::max<std::uint64_t>(window_blocks, 1)),
      blocks_((images + block_images_ - 1) / block_images_),
      missing_(blocks_ * block_images_ - images) {
  ensure(images > 0 && images < (std::uint64_t{1} << 62), "a sampler needs between 1 and 2^62 images");
  window_blocks_ = std::min(window_blocks_, blocks_);
}

std::uint64_t Sampler::image(std::uint64_t epoch, std::uint64_t place) const {
  Random random(seed_, Purpose::epoch_order, epoch);
  const std::uint64_t high = random.bits(), epoch_key = (high << 32) | random.bits();
  const std::uint64_t order_key = derive(epoch_key, 0);

  // Find the short block (the last one of the data set) in this epoch's order of blocks. Windows after its window begin
  // `missing_` places earlier than with full blocks.
  const std::uint64_t full = window_blocks_ * block_images_;
  const std::uint64_t short_slot = permute_back(blocks_ - 1, blocks_, order_key);
  const std::uint64_t short_window = short_slot / window_blocks_;
  std::uint64_t window = place / full;
  if (window > short_window || place >= (short_window + 1) * full - missing_) window = (place + missing_) / full;
  const bool holds_short = window == short_window;
  const std::uint64_t begin = window * full - (window > short_window ? missing_ : 0);
  const std::uint64_t first_slot = window * window_blocks_;
  const std::uint64_t slots = std::min(window_blocks_, blocks_ - first_slot);
  const std::uint64_t size = slots * block_images_ - (holds_short ? missing_ : 0);

  std::uint64_t inside = permute(place - begin, size, derive(epoch_key, window + 1));
  // Compute as if the short block were full: places after its images shift by `missing_`.
  if (holds_short) {
    const std::uint64_t short_end = (short_slot - first_slot + 1) * block_images_ - missing_;
    if (inside >= short_end) inside += missing_;
  }
  const std::uint64_t block = permute(first_slot + inside / block_images_, blocks_, order_key);
  return block * block_images_ + inside % block_images_;
}

}  // namespace seer::data
