// SPDX-License-Identifier: Apache-2.0
// Copies bytes between host and device. Some copies block the caller: see below.
#pragma once

#include <cstddef>

#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// Copies from any space to any space, in the queue's order. Blocks the caller if the host memory is not pinned. Pinned
/// memory (PinnedBuffer) must not change until the queue has done the copy. On a host queue both sides are host
/// memory.
void copy(Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes);

}  // namespace seer::device
