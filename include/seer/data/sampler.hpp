// SPDX-License-Identifier: Apache-2.0
// The order of images: a keyed permutation of [0, images) for every epoch, in constant memory (method.md 6).
#pragma once

#include <cstdint>

namespace seer::data {

/// Puts blocks of `block_images` neighbouring images into a random order. Then shuffles the images within each window
/// of `window_blocks` consecutive blocks of that order. So reading one window touches window_blocks places of the data
/// set. The last block of the data set and the last window may be shorter. The order depends only on (seed, sizes,
/// position), not on ranks, threads or earlier calls. Thread-safe.
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

/// A pseudo-random permutation of [0, n), n > 0: a balanced Feistel network over the next power of four, applied again
/// until the value lies in [0, n) (at most four times on average). The two functions are each other's inverse.
std::uint64_t permute(std::uint64_t value, std::uint64_t n, std::uint64_t key);
std::uint64_t permute_back(std::uint64_t value, std::uint64_t n, std::uint64_t key);

}  // namespace seer::data
