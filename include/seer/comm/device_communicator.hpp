// SPDX-License-Identifier: Apache-2.0
// Collectives on device memory, over NCCL: what Communicator does for host memory over MPI, under the same names, with
// the same parts, counted in the same traffic() and told to the watchdog alike. A host build has a body for the
// stand-in for a device (device/stand_in.hpp), which takes what it sends through host memory and MPI.
//
// A call puts its work into a queue and returns. All ranks make the same calls in the same order, those of several
// communicators too: one thread a rank calls. Collectives of one communicator go into one queue, or the caller orders
// its queues. Ranks that are gone or stuck are noticed by a thread that looks at all communicators of the process a few
// times a second: it tells the watchdog what has ended, and ends all ranks where NCCL reports an error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "seer/base/dtype.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/device/queue.hpp"

namespace seer::comm {

/// `rows` times `elems` values on a device; rows begin `stride` values apart.
struct DeviceRows {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, elems = 0, stride = 0;
};

class DeviceCommunicator {
 public:
  /// Rounds `from` to the type of `to`, to nearest even, in the queue's order; as many rows and elements. For wires of
  /// 16 bits; given from outside because kernels are none of this module's business.
  using Convert = std::function<void(device::Queue& queue, const DeviceRows& from, const DeviceRows& to)>;

  /// Collective over `group`, which is not needed afterwards. Error(device), agreed: NCCL too old, two ranks on one
  /// device, or NCCL's own words. Of a planned or single-rank group: no NCCL.
  explicit DeviceCommunicator(const Communicator& group, Convert convert = {});
  DeviceCommunicator(DeviceCommunicator&& other) noexcept;
  DeviceCommunicator& operator=(DeviceCommunicator&& other) noexcept;
  /// Waits for what is under way; while an exception is on its way through, aborts it instead, since the other ranks
  /// may never come.
  ~DeviceCommunicator();

  int rank() const;
  int size() const;

  void all_reduce(device::Queue& queue, float* values, std::size_t count, Op op = Op::sum);
  /// The sums of BatchNorm, packed: latency is all that counts.
  void all_reduce(device::Queue& queue, double* values, std::size_t count, Op op = Op::sum);
  /// f32, bf16 or f16.
  void all_reduce(device::Queue& queue, void* values, std::size_t count, DType dtype, Op op = Op::sum);
  void broadcast(device::Queue& queue, void* data, std::size_t bytes, int root = 0);

  // Of flat blocks: see communicator.hpp. A device does best with whole buckets: staging memory, asked for with the
  // first call that needs it, is cut into rounds only above this.
  static constexpr std::size_t kStagingBytes = std::size_t{256} << 20;

  void sum(device::Queue& queue, float* values, std::size_t count, DType wire,
           std::size_t staging_bytes = kStagingBytes);
  void reduce_scatter_parts(device::Queue& queue, float* whole, std::size_t count, DType wire = DType::f32,
                            std::size_t staging_bytes = kStagingBytes);
  void all_gather_parts(device::Queue& queue, float* whole, std::size_t count,
                        std::size_t staging_bytes = kStagingBytes);

  /// The caller waits until the queue has done what it was given. Unlike queue.wait(), throws Error(device) when a rank
  /// that it waits for is gone, after aborting.
  void wait(device::Queue& queue);
  std::int64_t staging_bytes() const;

 private:
  friend class UserBuffer;
  using Kind = device::Message::Kind;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace seer::comm
