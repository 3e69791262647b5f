// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>

#include "seer/device/memory.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::nn {

/// Copies of linear layers' weights in a half type, made again only when the weights have changed.
class RoundedWeights {
 public:
  explicit RoundedWeights(device::Space space) : space_(space) {}

  /// weights.version must not be 0. One type for all calls.
  const void* get(device::Queue& queue, dnn::Weights weights, std::int64_t count, DType type) {
    auto& kept = kept_[weights.data];
    const auto bytes = static_cast<std::size_t>(count) * dtype_bytes(type);
    if (kept.memory.bytes() != bytes) {
      kept = {device::Buffer(bytes, space_), 0};
      bytes_ += bytes;
    }
    if (kept.version != weights.version) {
      const device::Shape shape{1, 1, 1, count};
      kernels::cast(queue, {const_cast<void*>(weights.data), shape, DType::f32, space_},
                    {kept.memory.data(), shape, type, space_});
    }
    kept.version = weights.version;
    return kept.memory.data();
  }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Kept {
    device::Buffer memory;
    std::uint64_t version = 0;
  };
  device::Space space_;
  std::map<const void*, Kept> kept_;
  std::size_t bytes_ = 0;
};

}  // namespace seer::nn
