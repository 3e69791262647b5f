// SPDX-License-Identifier: Apache-2.0
// Fetches the encoded images of a batch with few large reads: images that lie close together in a shard share one read.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "seer/data/shard.hpp"

namespace seer::data {

/// Places and classes of images, read from the shards' tables one block at a time. Keeps the most recently used blocks,
/// since a sampler's window touches few. One thread at a time.
class PlaceCache {
 public:
  PlaceCache(const DataSet& data, std::uint64_t block_images, std::size_t blocks_kept)
      : data_(data), block_images_(block_images), kept_(blocks_kept) {}
  ImagePlace place(std::uint64_t image);
  /// The image's classes; valid until the next call of place() or targets().
  std::span<const std::int32_t> targets(std::uint64_t image);
  std::int64_t bytes() const;
  /// Bytes held per image: its place, the begin of its classes, and one class.
  static constexpr std::size_t kImageBytes = sizeof(ImagePlace) + sizeof(std::uint64_t) + sizeof(std::int32_t);

 private:
  struct Block {
    std::uint64_t number = 0;
    std::vector<ImagePlace> places;
    Targets targets;
  };
  const Block& block_of(std::uint64_t image);
  const DataSet& data_;
  std::uint64_t block_images_;
  std::size_t kept_;
  std::list<Block> blocks_;  // most recent first
  std::unordered_map<std::uint64_t, std::list<Block>::iterator> by_number_;
};

/// The bytes of one batch's images. One thread calls plan(); many may call bytes() and release().
class Fetch {
 public:
  /// `places`: of images 0, 1, ... of the batch. Returns the images in file order; process them in this order.
  std::vector<std::int64_t> plan(const std::vector<ImagePlace>& places);
  /// Returns the encoded image. The first caller of a shared read does the read, others wait for it. Error(file) if the
  /// read fails.
  std::span<const std::uint8_t> bytes(const DataSet& data, std::int64_t image);
  /// Says that the image's bytes are no longer needed. The last release of a shared read frees its memory.
  void release(std::int64_t image);
  /// Bytes of this batch that are in memory now.
  std::int64_t bytes_held() const { return held_.load(std::memory_order_relaxed); }

 private:
  struct Read {
    std::uint32_t shard = 0;
    std::uint64_t offset = 0, bytes = 0;
    std::int64_t users = 0;
    std::vector<std::uint8_t> buffer;
    bool done = false;
    std::mutex mutex;
  };
  struct Piece {
    Read* read = nullptr;
    std::uint64_t offset = 0, bytes = 0;  // inside the read
  };
  std::deque<Read> reads_;
  std::vector<Piece> pieces_;
  std::atomic<std::int64_t> held_{0};
};

}  // namespace seer::data
