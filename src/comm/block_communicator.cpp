// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/block_communicator.hpp"

#include <utility>

namespace seer::comm {

BlockCommunicator::BlockCommunicator(std::shared_ptr<const Communicator> group, const device::Queue& queue,
                                     Convert convert)
    : group_(std::move(group)) {
  if (queue.space == device::Space::device) device_.emplace(*group_, std::move(convert));
}
BlockCommunicator::BlockCommunicator(Communicator group, const device::Queue& queue, Convert convert)
    : BlockCommunicator(std::make_shared<const Communicator>(std::move(group)), queue, std::move(convert)) {}

BlockCommunicator BlockCommunicator::over(const Communicator& group, const device::Queue& queue) {
  return {std::shared_ptr<const Communicator>(std::shared_ptr<void>(), &group), queue, {}};
}

std::int64_t BlockCommunicator::staging_bytes() const {
  return device_ ? device_->staging_bytes() : group_->staging_bytes();
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<double> values, Op op) {
  if (device_) return device_->all_reduce(queue, values.data(), values.size(), op);
  group_->all_reduce(values, op);
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<float> values, Op op) {
  if (device_) return device_->all_reduce(queue, values.data(), values.size(), op);
  group_->all_reduce(values, op);
}

void BlockCommunicator::sum(device::Queue& queue, std::span<float> values, DType wire) {
  if (device_) return device_->sum(queue, values.data(), values.size(), wire);
  group_->sum(values, wire);
}

void BlockCommunicator::reduce_scatter_parts(device::Queue& queue, std::span<float> whole, DType wire) {
  if (device_) return device_->reduce_scatter_parts(queue, whole.data(), whole.size(), wire);
  group_->reduce_scatter_parts(whole, wire);
}

void BlockCommunicator::all_gather_parts(device::Queue& queue, std::span<float> whole) {
  if (device_) return device_->all_gather_parts(queue, whole.data(), whole.size());
  group_->all_gather_parts(whole);
}

}  // namespace seer::comm
