// SPDX-License-Identifier: Apache-2.0
// Collectives on device memory, over NCCL. Does what Communicator does for host memory over MPI: same names, same
// parts, same traffic() counters, same reports to the watchdog. A host build has an implementation for the stand-in for
// a device (device/stand_in.hpp), which sends through host memory and MPI.
//
// A call puts its work into a queue and returns. All ranks make the same calls in the same order, also across several
// communicators, so one thread per rank makes them. Collectives of one communicator go into one queue, or the caller
// orders its queues. A thread checks all communicators of the process every 20 ms, to notice ranks that are gone or
// stuck: it tells the watchdog which collectives have ended, and ends all ranks if NCCL reports an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "seer/base/dtype.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

/// `rows` rows of `elems` values on a device; rows begin `stride` values apart.
struct DeviceRows {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, elems = 0, stride = 0;
};

class DeviceCommunicator {
 public:
  /// Rounds `from` to the type of `to`, to nearest even, in the queue's order; both have the same rows and elements.
  /// For 16-bit transfers. The caller supplies it, because this module has no kernels.
  using Convert = std::function<void(device::Queue& queue, const DeviceRows& from, const DeviceRows& to)>;

  /// Collective over `group`, which is not needed afterwards. Throws Error(device), agreed: NCCL too old, two ranks on
  /// one device, or NCCL's own message. Does not use NCCL for a planned or single-rank group.
  explicit DeviceCommunicator(const Communicator& group, Convert convert = {});
  DeviceCommunicator(DeviceCommunicator&& other) noexcept;
  DeviceCommunicator& operator=(DeviceCommunicator&& other) noexcept;
  /// Waits for running collectives. While an exception unwinds the stack, aborts them instead, because the other ranks
  /// may never come.
  ~DeviceCommunicator();

  int rank() const;
  int size() const;

  void all_reduce(device::Queue& queue, float* values, std::size_t count, Op op = Op::sum);
  /// For the packed sums of BatchNorm, where only latency counts.
  void all_reduce(device::Queue& queue, double* values, std::size_t count, Op op = Op::sum);
  /// `dtype`: f32, bf16 or f16.
  void all_reduce(device::Queue& queue, void* values, std::size_t count, DType dtype, Op op = Op::sum);
  void broadcast(device::Queue& queue, void* data, std::size_t bytes, int root = 0);

  // Collectives on flat blocks: see communicator.hpp. A device does best with whole buckets, so it cuts staging memory
  // into rounds only above this size. The first call that needs staging memory allocates it.
  static constexpr std::size_t kStagingBytes = std::size_t{256} << 20;

  void sum(device::Queue& queue, float* values, std::size_t count, DType wire,
           std::size_t staging_bytes = kStagingBytes);
  void reduce_scatter_parts(device::Queue& queue, float* whole, std::size_t count, DType wire = DType::f32,
                            std::size_t staging_bytes = kStagingBytes);
  void all_gather_parts(device::Queue& queue, float* whole, std::size_t count,
                        std::size_t staging_bytes = kStagingBytes);

  /// Waits until the queue has done its work. Unlike queue.wait(), aborts and throws Error(device) if a rank that it
  /// waits for is gone.
  void wait(device::Queue& queue);
  std::int64_t staging_bytes() const;

 private:
  friend class UserBuffer;
  using Kind = device::Message::Kind;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
