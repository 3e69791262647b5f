// SPDX-License-Identifier: Apache-2.0
// Collectives on the memory of a queue: over MPI for host memory, over NCCL for device memory. One interface for both,
// with the same parts, counts and bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/comm/device_communicator.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

/// On the host a call returns when the collective is done; on a device, when it is in the queue.
class BlockCommunicator {
 public:
  using Convert = DeviceCommunicator::Convert;

  BlockCommunicator() = default;  ///< unusable until assigned
  /// Collective. `queue`: one of the queues that later calls will pass. `convert`: for 16-bit transfers on a device.
  BlockCommunicator(Communicator group, const device::Queue& queue, Convert convert = {});
  /// Collective. Uses `group`, which must outlive the result and counts its traffic.
  static BlockCommunicator over(const Communicator& group, const device::Queue& queue);

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  /// The same ranks, for data that is always on the host.
  const Communicator& group() const { return *group_; }
  std::vector<Traffic> traffic() const { return group_->traffic(); }
  std::int64_t staging_bytes() const;

  // See communicator.hpp.
  void all_reduce(device::Queue& queue, std::span<double> values, Op op = Op::sum);
  void all_reduce(device::Queue& queue, std::span<float> values, Op op = Op::sum);
  void sum(device::Queue& queue, std::span<float> values, DType wire);
  void reduce_scatter_parts(device::Queue& queue, std::span<float> whole, DType wire);
  void all_gather_parts(device::Queue& queue, std::span<float> whole);

 private:
  BlockCommunicator(std::shared_ptr<const Communicator> group, const device::Queue& queue, Convert convert);
  std::shared_ptr<const Communicator> group_;
  std::optional<DeviceCommunicator> device_;  ///< counts its traffic in group_
};

}  // namespace seer::comm
