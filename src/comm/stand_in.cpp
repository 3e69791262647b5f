// SPDX-License-Identifier: Apache-2.0
// Replaces src/comm/cuda in a host build: collectives and events on the stand-in for a device (device/stand_in.hpp).
// Blocks go through host memory, so that MPI sees no device memory here either. The collectives are the host's and give
// the same bits.
#if !defined(SEER_CUDA)
#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "event_order.hpp"
#include "record.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::comm {

struct BlockCommunicator::Impl {
  /// Copies `values` to the host, runs call(span) on the copy, and copies them back.
  template <class T, class Call>
  void through_host(const device::Queue& queue, std::span<T> values, const Call& call) {
    if (group.ledger() != nullptr) return call(values);
    if (group.size() == 1 || values.empty()) return;
    ensure(queue.space == device::Space::device, "a collective on device memory needs a device queue");
    device::expect_reached(queue, values.data(), "a collective");
    memory.resize(std::max(memory.size(), values.size_bytes()));
    const std::span copy(reinterpret_cast<T*>(memory.data()), values.size());
    {
      const device::StandInAccess access(queue);
      std::memcpy(copy.data(), values.data(), values.size_bytes());
    }
    call(copy);
    const device::StandInAccess access(queue);
    std::memcpy(values.data(), copy.data(), values.size_bytes());
  }

  Communicator group;
  std::vector<std::byte> memory = {};  ///< kept for the next call
};

BlockCommunicator::BlockCommunicator(Communicator group, const device::Queue& queue, Convert, bool)
    : group_(std::move(group)) {
  if (queue.space == device::Space::device) impl_.reset(new Impl{group_});
}
BlockCommunicator::BlockCommunicator(BlockCommunicator&&) noexcept = default;
BlockCommunicator& BlockCommunicator::operator=(BlockCommunicator&&) noexcept = default;
BlockCommunicator::~BlockCommunicator() = default;

std::int64_t BlockCommunicator::staging_bytes() const {
  return group_.staging_bytes();
}
void BlockCommunicator::wait(device::Queue& queue) {
  queue.wait();
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<float> values, Op op) {
  if (!impl_) return group_.all_reduce(values, op);
  impl_->through_host(queue, values, [&](std::span<float> all) { group_.all_reduce(all, op); });
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<double> values, Op op) {
  if (!impl_) return group_.all_reduce(values, op);
  impl_->through_host(queue, values, [&](std::span<double> all) { group_.all_reduce(all, op); });
}

void BlockCommunicator::broadcast(device::Queue& queue, void* data, std::size_t bytes, int root) {
  if (!impl_) return group_.broadcast(data, bytes, root);
  impl_->through_host(queue, std::span(static_cast<std::byte*>(data), bytes),
                      [&](std::span<std::byte> all) { group_.broadcast(all.data(), all.size(), root); });
}

void BlockCommunicator::sum(device::Queue& queue, std::span<float> values, DType wire, std::size_t device_staging) {
  if (!impl_) return group_.sum(values, wire);
  impl_->through_host(queue, values, [&](std::span<float> all) { group_.sum(all, wire, device_staging); });
}

void BlockCommunicator::reduce_scatter_parts(device::Queue& queue, std::span<float> whole, DType wire,
                                             std::size_t device_staging) {
  if (!impl_) return group_.reduce_scatter_parts(whole, wire);
  impl_->through_host(queue, whole,
                      [&](std::span<float> all) { group_.reduce_scatter_parts(all, wire, device_staging); });
}

void BlockCommunicator::all_gather_parts(device::Queue& queue, std::span<float> whole, std::size_t device_staging) {
  if (!impl_) return group_.all_gather_parts(whole);
  impl_->through_host(queue, whole,
                      [&](std::span<float> all) { group_.all_gather_parts(all, INT_MAX, device_staging); });
}

namespace {

/// Work is done when it is submitted, so an event is just a time.
class StandInEvents : public EventSource {
 public:
  using EventSource::EventSource;
  Event make() override { return new double(0); }
  void drop(Event event) noexcept override { delete static_cast<double*>(event); }
  void record(Event event, Lane) override { *static_cast<double*>(event) = clock_.ms(); }
  void hold(Lane, Event) override {}
  bool reached(Event) override { return true; }
  double ms(Event from, Event to) override { return *static_cast<double*>(to) - *static_cast<double*>(from); }

 private:
  Clock clock_;
};

}  // namespace

std::unique_ptr<EventSource> device_events(const device::Queue& compute, bool beside) {
  return std::make_unique<StandInEvents>(compute, beside);
}

}  // namespace seer::comm
#endif
