// SPDX-License-Identifier: Apache-2.0
#include "seer/train/faults.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "seer/kernels/activation.hpp"

namespace seer::train {

Faults::Faults(const config::Faults& config, const comm::Communicator& comm) : config_(config) {
  if (comm.ledger() != nullptr) return;
  nan_here_ = !config.nan_updates.empty() && config.nan_rank % comm.size() == comm.rank();
  flip_here_ = config.flip_update > 0 && config.flip_rank % comm.size() == comm.rank();
}

void Faults::strike(device::Queue& queue, std::int64_t update, bool second_pass, float* gradient) const {
  const auto there = device::view(gradient, 1, queue.space);
  if (nan_here_ &&
      std::find(config_.nan_updates.begin(), config_.nan_updates.end(), update) != config_.nan_updates.end()) {
    kernels::fill(queue, there, std::numeric_limits<float>::quiet_NaN());
  }
  if (flip_here_ && second_pass && config_.flip_update == update) {
    float value = 0;
    const device::Tensor here{.data = &value, .shape = {1, 1, 1, 1}};
    kernels::copy(queue, there, here);
    queue.wait();
    value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1U);
    kernels::copy(queue, here, there);
  }
}

}  // namespace seer::train
