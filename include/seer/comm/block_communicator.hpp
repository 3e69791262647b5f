// SPDX-License-Identifier: Apache-2.0
// Collectives on the memory of a queue: over MPI for host memory, over NCCL for device memory. One interface for both,
// with the same parts, counts and bytes, and the same reports to the watchdog. A host build has an implementation for
// the stand-in for a device (device/stand_in.hpp), which sends through host memory and MPI.
//
// On the host a call returns when the collective is done; on a device, when it is in the queue. All ranks make the same
// calls in the same order, also across several communicators, so one thread per rank makes them. Collectives of one
// communicator go into one queue, or the caller orders its queues. A thread checks all device communicators of the
// process every 20 ms, to notice ranks that are gone or stuck: it tells the watchdog which collectives have ended, and
// ends all ranks if NCCL reports an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

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

class BlockCommunicator {
 public:
  /// Rounds `from` to the type of `to`, to nearest even, in the queue's order; both have the same rows and elements.
  /// The caller supplies it, because this module has no kernels.
  using Convert = std::function<void(device::Queue& queue, const DeviceRows& from, const DeviceRows& to)>;

  /// Collective. `group` counts the traffic. `queue`: one of the queues that later calls will pass. `convert`: for
  /// 16-bit transfers on a device. Throws Error(device), agreed: NCCL too old, two ranks on one device, or NCCL's own
  /// message. Does not use NCCL for a planned group, nor for a single rank unless `even_alone`, which tries NCCL where
  /// there is one device only.
  BlockCommunicator(Communicator group, const device::Queue& queue, Convert convert = {}, bool even_alone = false);
  BlockCommunicator(BlockCommunicator&& other) noexcept;
  BlockCommunicator& operator=(BlockCommunicator&& other) noexcept;
  /// Waits for running collectives. While an exception unwinds the stack, aborts them instead, because the other ranks
  /// may never come.
  ~BlockCommunicator();

  int rank() const { return group_.rank(); }
  int size() const { return group_.size(); }
  /// The same ranks, for data that is always on the host.
  const Communicator& group() const { return group_; }
  std::vector<Traffic> traffic() const { return group_.traffic(); }
  std::int64_t staging_bytes() const;

  // See communicator.hpp. On a device, staging memory is cut into rounds only above this size, because a device does
  // best with whole buckets; on the host, above Communicator::kStagingBytes.
  static constexpr std::size_t kStagingBytes = std::size_t{256} << 20;

  void all_reduce(device::Queue& queue, std::span<float> values, Op op = Op::sum);
  /// For the packed sums of BatchNorm, where only latency counts.
  void all_reduce(device::Queue& queue, std::span<double> values, Op op = Op::sum);
  void broadcast(device::Queue& queue, void* data, std::size_t bytes, int root = 0);
  void sum(device::Queue& queue, std::span<float> values, DType wire, std::size_t device_staging = kStagingBytes);
  void reduce_scatter_parts(device::Queue& queue, std::span<float> whole, DType wire = DType::f32,
                            std::size_t device_staging = kStagingBytes);
  void all_gather_parts(device::Queue& queue, std::span<float> whole, std::size_t device_staging = kStagingBytes);

  /// Waits until the queue has done its work. Unlike queue.wait(), aborts and throws Error(device) if a rank that it
  /// waits for is gone.
  void wait(device::Queue& queue);

 private:
  friend class UserBuffer;
  using Kind = device::Message::Kind;
  struct Impl;
  Communicator group_;
  std::unique_ptr<Impl> impl_;  ///< null on the host
};

}  // namespace seer::comm
