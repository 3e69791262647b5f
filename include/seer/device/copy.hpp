// SPDX-License-Identifier: Apache-2.0
// Bytes between host and device. Not cheap where it waits: see below.
#pragma once

#include <cstddef>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// From any space to any space, in the queue's order; host memory that is not pinned makes it wait. Pinned memory
/// (device/pinned.hpp) must stay as it is until the queue has come so far. On a host queue both are host memory.
void copy(Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes);

}  // namespace seer::device
