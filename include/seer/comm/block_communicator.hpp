// SPDX-License-Identifier: Apache-2.0
// Collectives on memory that a queue works on: over MPI where it is the host's, over NCCL where it is a device's. One
// interface for both. Parts, counts and bytes are the same.
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

/// On the host a call returns when it is done; on a device, when it is in the queue.
class BlockCommunicator {
 public:
  using Convert = DeviceCommunicator::Convert;

  BlockCommunicator() = default;  ///< of no use until assigned
  /// Collective. `queue`: one of those that will be given. `convert`: for wires of 16 bits on a device.
  BlockCommunicator(Communicator group, const device::Queue& queue, Convert convert = {});
  /// Of a communicator that outlives it and counts its traffic. Collective.
  static BlockCommunicator over(const Communicator& group, const device::Queue& queue);

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  /// The same ranks, for what lies on the host in any case.
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
  std::optional<DeviceCommunicator> device_;  ///< counts as group_
};

}  // namespace seer::comm
