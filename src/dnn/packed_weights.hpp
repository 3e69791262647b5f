// SPDX-License-Identifier: Apache-2.0
// Copies of weights in the order that a kernel needs, kept between calls while the weights stay the same; and scratch
// memory that grows to the size of the largest call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "seer/device/memory.hpp"
#include "seer/device/recorder.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// A block of memory that grows; growing loses the contents.
class Scratch {
 public:
  explicit Scratch(device::Space space = device::Space::host) : space_(space) {}
  void* need(std::size_t bytes) {
    if (bytes > buffer_.bytes()) {
      buffer_ = device::Buffer();  // frees the old block first, so that both never exist together
      buffer_ = device::Buffer(bytes, space_);
    }
    return buffer_.data();
  }
  std::size_t bytes() const { return buffer_.bytes(); }

 private:
  device::Space space_;
  device::Buffer buffer_;
};

/// Packed copies by (weights, layout). A copy beyond the limit is packed again at every call, into scratch. There is no
/// eviction: a step visits all layers in turn, so evicting the oldest copy would evict every one before its next use.
class PackedWeights {
 public:
  /// Space::planned: packs nothing.
  explicit PackedWeights(device::Space space = device::Space::host) : space_(space), temporary_(space) {}

  /// Writes the packed form of the weights to the given memory.
  using Pack = std::function<void(void* packed)>;

  /// `layout` identifies the order (equal orders share a copy) and determines `bytes`.
  void* get(Weights weights, int layout, std::size_t bytes, const Pack& pack) {
    const Key key{weights.data, layout};
    auto found = weights.version != 0 ? kept_.find(key) : kept_.end();
    if (found == kept_.end() && weights.version != 0 && kept_bytes_ + bytes <= limit_bytes_) {
      found = kept_.emplace(key, Kept{device::Buffer(bytes, space_), 0}).first;
      kept_bytes_ += bytes;
    }
    Kept* const kept = found != kept_.end() ? &found->second : nullptr;
    if (kept != nullptr && kept->version == weights.version) return kept->memory.data();
    if (kept != nullptr) kept->version = 0;  // remains 0 if packing throws
    void* const memory = kept != nullptr ? kept->memory.data() : temporary_.need(bytes);
    if (space_ != device::Space::planned) {
      const device::Timed timed({}, device::kWeightsPacked, 2 * static_cast<double>(bytes));
      pack(memory);
    }
    if (kept != nullptr) kept->version = weights.version;
    return memory;
  }

  void set_limit(std::size_t bytes) {
    limit_bytes_ = bytes;
    if (kept_bytes_ > limit_bytes_) {
      kept_.clear();
      kept_bytes_ = 0;
    }
  }
  std::size_t held_bytes() const { return kept_bytes_ + temporary_.bytes(); }

 private:
  using Key = std::pair<const void*, int>;
  struct Kept {
    device::Buffer memory;
    std::uint64_t version;
  };
  std::map<Key, Kept> kept_;
  device::Space space_;
  std::size_t kept_bytes_ = 0;
  std::size_t limit_bytes_ = std::size_t{1} << 30;
  Scratch temporary_;
};

}  // namespace seer::dnn
