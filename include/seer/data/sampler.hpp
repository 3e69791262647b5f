// SPDX-License-Identifier: Apache-2.0
// The order of images: a keyed bijection of [0, images) for every epoch, in constant memory (method.md 6).
#pragma once

#include <cstdint>

namespace seer::data {

/// Blocks of `block_images` neighbouring images are put into a random order; each window of `window_blocks` blocks
/// that follow each other in that order is shuffled image by image. A read of one window therefore touches
/// window_blocks places of the data set. The last block of the data set and the last window may be shorter.
/// Depends on (seed, sizes, position) only: not on ranks, threads or what was asked before. Thread-safe.
class Sampler {
 public:
  Sampler(std::uint64_t images, std::uint64_t seed, std::uint64_t block_images, std::uint64_t window_blocks);

  /// Image at a position of the infinite sequence of epochs: epoch = position / images.
  std::uint64_t image(std::uint64_t position) const { return image(position / images_, position % images_); }
  /// Image at `place` in [0, images) of an epoch.
  std::uint64_t image(std::uint64_t epoch, std::uint64_t place) const;

  std::uint64_t images() const { return images_; }
  std::uint64_t block_images() const { return block_images_; }
  std::uint64_t blocks() const { return blocks_; }

 private:
  std::uint64_t images_, seed_, block_images_, window_blocks_, blocks_;
  std::uint64_t missing_;  // images that the last block lacks
};

/// A pseudo-random bijection of [0, n), n > 0: a balanced Feistel network over the next power of four, walked until it
/// lands inside (at most four steps on average). Inverse of each other.
std::uint64_t permute(std::uint64_t value, std::uint64_t n, std::uint64_t key);
std::uint64_t permute_back(std::uint64_t value, std::uint64_t n, std::uint64_t key);

}  // namespace seer::data
