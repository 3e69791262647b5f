// SPDX-License-Identifier: Apache-2.0
// Owning memory: Buffer for what lives as long as the run (parameters, momentum), Pool for what comes and goes
// within a step (activations, gradients of activations, workspaces).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "seer/device/tensor.hpp"

namespace seer::device {

/// 64-byte aligned, zero-filled, move-only. Throws Error(device) with the size wanted when there is no memory.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes, Space space = Space::host);
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Buffer();
  void* data() const { return data_; }
  float* f32() const { return static_cast<float*>(data_); }
  std::size_t bytes() const { return bytes_; }
  static Buffer floats(std::size_t count) { return Buffer(count * sizeof(float)); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Pool;

/// A tensor on loan from a Pool; given back when this goes out of scope.
class Loan {
 public:
  Loan() = default;
  Loan(Pool* pool, Tensor tensor, std::size_t block_bytes) : pool_(pool), tensor_(tensor), block_bytes_(block_bytes) {}
  Loan(Loan&& other) noexcept { *this = std::move(other); }
  Loan& operator=(Loan&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(tensor_, other.tensor_);
    std::swap(block_bytes_, other.block_bytes_);
    return *this;
  }
  ~Loan() { release(); }
  void release();
  const Tensor& operator*() const { return tensor_; }
  const Tensor* operator->() const { return &tensor_; }
  explicit operator bool() const { return pool_ != nullptr; }

 private:
  Pool* pool_ = nullptr;
  Tensor tensor_;
  std::size_t block_bytes_ = 0;
};

/// Memory that is asked for in the same sizes every step: a freed block is kept and lent again to a request that it
/// fits within an eighth, so that after the first steps the system is not asked again. Contents are not cleared.
/// One thread only.
class Pool {
 public:
  explicit Pool(Space space = Space::host) : space_(space) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  Loan tensor(Shape shape, DType dtype = DType::f32);
  Loan bytes(std::size_t count) { return tensor({1, 1, 1, static_cast<std::int64_t>(count)}, DType::u8); }

  std::size_t in_use_bytes() const { return in_use_bytes_; }
  std::size_t peak_bytes() const { return peak_bytes_; }
  /// What was taken from the system, in use or not.
  std::size_t held_bytes() const { return held_bytes_; }
  /// How often the system was asked: constant after the second step.
  std::uint64_t system_allocations() const { return system_allocations_; }
  /// Gives free blocks back to the system.
  void trim();

 private:
  friend class Loan;
  void give_back(void* data, std::size_t block_bytes);
  Space space_;
  std::multimap<std::size_t, void*> free_;  // by size
  std::size_t in_use_bytes_ = 0, peak_bytes_ = 0, held_bytes_ = 0;
  std::uint64_t system_allocations_ = 0;
};

/// Bytes the process holds now and held at most (resident set, /proc/self/status); 0 where unknown.
/// What the machine can still give without swapping (MemAvailable); 0 where unknown.
std::size_t available_bytes();
std::size_t resident_bytes();
std::size_t peak_resident_bytes();

}  // namespace seer::device
