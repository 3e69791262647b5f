// SPDX-License-Identifier: Apache-2.0
// Device memory that NCCL reads and writes in place (since 2.19: over NVLink, with sums taken in the switch; on some
// networks, too), without copies through buffers of its own. Device builds only.
#pragma once

#include <cstddef>
#include <memory>

#include "seer/comm/device_communicator.hpp"

namespace seer::comm {

class Live;  // a communicator of NCCL (src/comm/cuda/live.hpp)

/// Zero-filled, move-only. If one rank gives a communicator registered memory in a call, all do, at the same offset
/// from its beginning: NCCL's rule.
class UserBuffer {
 public:
  UserBuffer();
  /// Error(device) with the size wanted when there is no memory.
  explicit UserBuffer(std::size_t bytes);
  UserBuffer(UserBuffer&& other) noexcept;
  UserBuffer& operator=(UserBuffer&& other) noexcept;
  /// All that uses it is done.
  ~UserBuffer();

  /// All ranks of the communicator, each with a buffer of equal size. Nothing where NCCL is older.
  void register_with(const DeviceCommunicator& comm);
  void* data() const;
  float* f32() const { return static_cast<float*>(data()); }
  std::size_t bytes() const;

 private:
  friend class DeviceCommunicator;
  void register_with(const std::shared_ptr<Live>& live);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
