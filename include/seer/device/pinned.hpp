// SPDX-License-Identifier: Apache-2.0
// Host memory that a device reads and writes by itself, so copies from and to it run concurrently with the program.
#pragma once

#include <cstddef>
#include <utility>

namespace seer::device {

/// Zero-filled, move-only. Pinning is slow and takes memory from the whole node, so use it for long-lived buffers.
/// Ordinary memory in a host build. Throws Error(device) if there is no memory.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  /// Wait for running copies first.
  ~PinnedBuffer();
  void* data() const { return data_; }
  float* f32() const { return static_cast<float*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace seer::device
