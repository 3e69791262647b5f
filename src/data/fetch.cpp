// SPDX-License-Identifier: Apache-2.0
#include "fetch.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace seer::data {
namespace {

// The largest gap that is cheaper to read than to skip with another request, and the largest size of one request.
constexpr std::uint64_t kGapBytes = std::uint64_t{64} << 10, kReadBytes = std::uint64_t{4} << 20;

}  // namespace

const PlaceCache::Block& PlaceCache::block_of(std::uint64_t image) {
  const std::uint64_t number = image / block_images_, first = number * block_images_;
  if (const auto found = by_number_.find(number); found != by_number_.end()) {
    blocks_.splice(blocks_.begin(), blocks_, found->second);
  } else {
    const auto count = std::min(block_images_, data_.images() - first);
    blocks_.push_front(
        {number, data_.places(first, count), data_.has_labels() ? data_.targets(first, count) : Targets()});
    by_number_[number] = blocks_.begin();
    if (blocks_.size() > kept_) {
      by_number_.erase(blocks_.back().number);
      blocks_.pop_back();
    }
  }
  return blocks_.front();
}

ImagePlace PlaceCache::place(std::uint64_t image) {
  return block_of(image).places[image % block_images_];
}

std::span<const std::int32_t> PlaceCache::targets(std::uint64_t image) {
  const auto& block = block_of(image);
  if (block.targets.images() == 0) return {};
  return block.targets.of(image % block_images_);
}

std::int64_t PlaceCache::bytes() const {
  return static_cast<std::int64_t>(std::min(kept_ * block_images_, data_.images()) * kImageBytes);
}

std::vector<std::int64_t> Fetch::plan(const std::vector<ImagePlace>& places) {
  reads_.clear();
  pieces_.assign(places.size(), {});
  held_ = 0;
  std::vector<std::int64_t> order(places.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto key = [&places](std::int64_t i) {
    const auto& place = places[static_cast<std::size_t>(i)];
    return std::tuple(place.shard, place.offset, i);
  };
  std::sort(order.begin(), order.end(), [&key](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
  for (const std::int64_t i : order) {
    const auto& place = places[static_cast<std::size_t>(i)];
    const std::uint64_t end = place.offset + place.bytes;
    Read* read = reads_.empty() ? nullptr : &reads_.back();
    const bool joins = read != nullptr && read->shard == place.shard &&
                       place.offset <= read->offset + read->bytes + kGapBytes && end <= read->offset + kReadBytes;
    if (!joins) {
      read = &reads_.emplace_back();
      read->shard = place.shard;
      read->offset = place.offset;
    }
    read->bytes = std::max(read->bytes, end - read->offset);
    ++read->users;
    pieces_[static_cast<std::size_t>(i)] = {read, place.offset - read->offset, place.bytes};
  }
  return order;
}

std::span<const std::uint8_t> Fetch::bytes(const DataSet& data, std::int64_t image) {
  const Piece& piece = pieces_[static_cast<std::size_t>(image)];
  std::lock_guard lock(piece.read->mutex);
  if (!piece.read->done) {
    piece.read->buffer.resize(piece.read->bytes);
    held_ += static_cast<std::int64_t>(piece.read->bytes);
    data.read(piece.read->shard, piece.read->offset, piece.read->bytes, piece.read->buffer.data());
    piece.read->done = true;
  }
  return {piece.read->buffer.data() + piece.offset, piece.bytes};
}

void Fetch::release(std::int64_t image) {
  Read& read = *pieces_[static_cast<std::size_t>(image)].read;
  std::lock_guard lock(read.mutex);
  if (--read.users > 0) return;
  held_ -= static_cast<std::int64_t>(read.buffer.size());
  std::vector<std::uint8_t>().swap(read.buffer);
}

}  // namespace seer::data
