// SPDX-License-Identifier: Apache-2.0
// Replaces src/comm/cuda in a host build: collectives and events on the stand-in for a device (device/stand_in.hpp).
// Blocks go through host memory, so that MPI sees no device memory here either. The collectives are the host's and give
// the same bits.
#if !defined(SEER_CUDA)
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "event_order.hpp"
#include "record.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/device_communicator.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::comm {

struct DeviceCommunicator::Impl {
  explicit Impl(const Communicator& of) {
    if (of.ledger() == nullptr && of.size() > 1) group = of.duplicate();
    group.rank_ = of.rank_;
    group.size_ = of.size_;
    group.record_ = of.record_;  // shares its counters
  }

  /// Copies `count` values to the host, runs call(span) on the copy, and copies them back.
  template <class T, class Call>
  void through_host(const device::Queue& queue, T* values, std::size_t count, std::vector<T>& copy, const Call& call) {
    if (group.ledger() != nullptr) return call(std::span(values, count));
    if (group.size() == 1 || count == 0) return;
    ensure(queue.space == device::Space::device, "a collective on device memory needs a device queue");
    device::expect_reached(queue, values, "a collective");
    copy.resize(count);
    {
      const device::StandInAccess access(queue);
      std::memcpy(copy.data(), values, count * sizeof(T));
    }
    call(std::span(copy));
    const device::StandInAccess access(queue);
    std::memcpy(values, copy.data(), count * sizeof(T));
  }

  Communicator group;
  std::vector<float> floats;  ///< kept to reuse their memory
  std::vector<double> doubles;
  std::vector<char> bytes;
};

DeviceCommunicator::DeviceCommunicator(const Communicator& group, Convert) : impl_(std::make_unique<Impl>(group)) {}
DeviceCommunicator::DeviceCommunicator(DeviceCommunicator&&) noexcept = default;
DeviceCommunicator& DeviceCommunicator::operator=(DeviceCommunicator&&) noexcept = default;
DeviceCommunicator::~DeviceCommunicator() = default;

int DeviceCommunicator::rank() const {
  return impl_->group.rank();
}
int DeviceCommunicator::size() const {
  return impl_->group.size();
}
std::int64_t DeviceCommunicator::staging_bytes() const {
  return impl_->group.staging_bytes();
}
void DeviceCommunicator::wait(device::Queue& queue) {
  queue.wait();
}

void DeviceCommunicator::all_reduce(device::Queue& queue, float* values, std::size_t count, Op op) {
  impl_->through_host(queue, values, count, impl_->floats,
                      [&](std::span<float> all) { impl_->group.all_reduce(all, op); });
}

void DeviceCommunicator::all_reduce(device::Queue& queue, double* values, std::size_t count, Op op) {
  impl_->through_host(queue, values, count, impl_->doubles,
                      [&](std::span<double> all) { impl_->group.all_reduce(all, op); });
}

void DeviceCommunicator::all_reduce(device::Queue& queue, void* values, std::size_t count, DType dtype, Op op) {
  ensure(dtype == DType::f32, "the stand-in for a device reduces floats and doubles");
  all_reduce(queue, static_cast<float*>(values), count, op);
}

void DeviceCommunicator::broadcast(device::Queue& queue, void* data, std::size_t bytes, int root) {
  impl_->through_host(queue, static_cast<char*>(data), bytes, impl_->bytes,
                      [&](std::span<char> all) { impl_->group.broadcast(all.data(), all.size(), root); });
}

void DeviceCommunicator::sum(device::Queue& queue, float* values, std::size_t count, DType wire,
                             std::size_t staging_bytes) {
  impl_->through_host(queue, values, count, impl_->floats,
                      [&](std::span<float> all) { impl_->group.sum(all, wire, staging_bytes); });
}

void DeviceCommunicator::reduce_scatter_parts(device::Queue& queue, float* whole, std::size_t count, DType wire,
                                              std::size_t staging_bytes) {
  impl_->through_host(queue, whole, count, impl_->floats,
                      [&](std::span<float> all) { impl_->group.reduce_scatter_parts(all, wire, staging_bytes); });
}

void DeviceCommunicator::all_gather_parts(device::Queue& queue, float* whole, std::size_t count,
                                          std::size_t staging_bytes) {
  impl_->through_host(queue, whole, count, impl_->floats,
                      [&](std::span<float> all) { impl_->group.all_gather_parts(all, INT_MAX, staging_bytes); });
}

namespace {

/// Work is done when it is submitted, so an event is just a time.
class StandInEvents : public EventSource {
 public:
  StandInEvents(const device::Queue& compute, bool beside) : aside_(compute) {
    if (!beside) return;
    own_.emplace(device::DeviceQueue::Priority::high);
    aside_ = own_->queue();
  }
  Event make() override { return new double(0); }
  void drop(Event event) noexcept override { delete static_cast<double*>(event); }
  void record(Event event, Lane) override { *static_cast<double*>(event) = clock_.ms(); }
  void hold(Lane, Event) override {}
  bool reached(Event) override { return true; }
  double ms(Event from, Event to) override { return *static_cast<double*>(to) - *static_cast<double*>(from); }
  device::Queue aside() const override { return aside_; }
  void finish() override { aside_.wait(); }

 private:
  device::Queue aside_;
  std::optional<device::DeviceQueue> own_;
  Clock clock_;
};

}  // namespace

std::unique_ptr<EventSource> device_events(const device::Queue& compute, bool beside) {
  return std::make_unique<StandInEvents>(compute, beside);
}

}  // namespace seer::comm
#endif
