// SPDX-License-Identifier: Apache-2.0
// Device memory that NCCL reads and writes in place, without copies through its own buffers (since 2.19: over NVLink,
// with sums taken in the switch; on some networks, too). Device builds only.
#pragma once

#include <cstddef>
#include <memory>

#include "seer/comm/block_communicator.hpp"

namespace seer::comm {

class Live;  // an NCCL communicator (src/comm/cuda/live.hpp)

/// Zero-filled, move-only. NCCL's rule: if one rank passes registered memory to a collective, all ranks do, at the same
/// offset from its beginning.
class UserBuffer {
 public:
  UserBuffer();
  /// Throws Error(device) with the wanted size if there is no memory.
  explicit UserBuffer(std::size_t bytes);
  UserBuffer(UserBuffer&& other) noexcept;
  UserBuffer& operator=(UserBuffer&& other) noexcept;
  /// All work that uses it must be done.
  ~UserBuffer();

  /// Called by all ranks of the communicator, each with a buffer of equal size. Does nothing if NCCL is older than
  /// 2.19.
  void register_with(const BlockCommunicator& comm);
  void* data() const;
  float* f32() const { return static_cast<float*>(data()); }
  std::size_t bytes() const;

 private:
  friend class BlockCommunicator;
  void register_with(const std::shared_ptr<Live>& live);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
