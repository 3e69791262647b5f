// SPDX-License-Identifier: Apache-2.0
// Classes that own memory: Buffer for data that lives as long as the run (parameters, momentum), PinnedBuffer for what
// is copied to and from a device, Pool for data that lives within a step (activations, their gradients, workspaces).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// Does nothing for planned memory.
struct FreeMemory {
  Space space = Space::host;
  void operator()(void* data) const noexcept;
};

/// 64-byte aligned, zero-filled, move-only. Planned memory has a size but does not exist. If memory is short, throws
/// Error with the wanted size and exit_code_without(). Creating or freeing one on a device waits for the device.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes, Space space = Space::host);
  void* data() const { return data_.get(); }
  float* f32() const { return static_cast<float*>(data()); }
  std::size_t bytes() const { return bytes_; }
  Space space() const { return data_.get_deleter().space; }
  /// The whole buffer as floats.
  Tensor view() const { return device::view(f32(), static_cast<std::int64_t>(bytes_ / sizeof(float)), space()); }
  static Buffer floats(std::size_t count, Space space = Space::host) { return Buffer(count * sizeof(float), space); }

 private:
  std::unique_ptr<void, FreeMemory> data_;
  std::size_t bytes_ = 0;
};

/// Host memory that a device reads and writes by itself, so copies from and to it run concurrently with the program.
/// Zero-filled, move-only. Pinning is slow and takes memory from the whole node, so use it for long-lived buffers.
/// Ordinary memory in a host build. Throws Error(device) if there is no memory.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t bytes);
  void* data() const { return data_.get(); }
  float* f32() const { return static_cast<float*>(data()); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* data) const noexcept;  ///< wait for running copies first
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_ = 0;
};

class Pool;

/// A tensor on loan from a Pool. The destructor gives it back.
class Loan {
 public:
  Loan() = default;
  Loan(Pool* pool, Tensor tensor) : pool_(pool), tensor_(tensor) {}
  Loan(Loan&& other) noexcept { *this = std::move(other); }
  Loan& operator=(Loan&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(tensor_, other.tensor_);
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
};

/// An arena for memory that is used within a step. It lends the smallest free stretch that is large enough (the one at
/// the arena's end only if no other is), and merges it with its free neighbours when it comes back. So the same
/// requests in the same order get the same places, on a planned machine as on a real one. Contents are not cleared. One
/// thread only. On a device, a loan may be given back while its last work still runs, if the next user of that place
/// works on the same queue.
class Pool {
 public:
  explicit Pool(Space space = Space::host) : space_(space) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Allocates `bytes` from the system at once. Later requests that do not fit are allocated one by one.
  void reserve(std::size_t bytes);
  /// Returns unused pieces to the system.
  void trim();

  Loan tensor(Shape shape, DType dtype = DType::f32);
  Loan bytes(std::size_t count) { return tensor({1, 1, 1, static_cast<std::int64_t>(count)}, DType::u8); }

  std::size_t in_use_bytes() const { return in_use_bytes_; }
  std::size_t peak_bytes() const { return peak_bytes_; }
  /// Bytes allocated from the system, in use or not. Planned: the highest end of any loan so far, gaps included.
  std::size_t held_bytes() const { return held_bytes_; }
  /// Number of allocations from the system.
  std::uint64_t system_allocations() const { return system_allocations_; }

 private:
  friend class Loan;
  struct Stretch {
    std::size_t begin, bytes;
  };
  /// A piece of memory from the system, with its free stretches in order.
  struct Chunk {
    std::unique_ptr<char, FreeMemory> base;
    std::size_t bytes;
    std::vector<Stretch> free;
  };
  void grow(std::size_t bytes);
  void give_back(const Tensor& tensor);

  Space space_;
  std::vector<Chunk> chunks_;
  std::size_t in_use_bytes_ = 0, peak_bytes_ = 0, held_bytes_ = 0;
  std::uint64_t system_allocations_ = 0;
};

/// Bytes of the machine's memory (within the limits of this process's control groups, e.g. those of a Slurm job or a
/// container: Linux kills a process above a group's limit without a message) or of this process's device.
struct SystemMemory {
  std::size_t total = 0;      ///< 0: unknown
  std::size_t available = 0;  ///< what it can still provide without swapping; 0: unknown
};
/// The minimum over the machine and all control groups (versions 1 and 2) from this process's group up to the root. A
/// group's inactive file cache counts as free, as in MemAvailable.
SystemMemory host_memory(const std::string& proc = "/proc", const std::string& groups = "/sys/fs/cgroup");
std::size_t available_bytes(Space space = Space::host);
/// Exit code for a failed allocation of `bytes`: `input` if the machine has less than that in total (a retry cannot
/// succeed), `device` if the memory is only in use at the moment.
ExitCode exit_code_without(std::size_t bytes, Space space);
/// Bytes that the process holds now, and the most it has held (resident set, /proc/self/status); 0 if unknown.
std::size_t resident_bytes();
std::size_t peak_resident_bytes();

}  // namespace seer::device
