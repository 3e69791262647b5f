// SPDX-License-Identifier: Apache-2.0
// What memory.cpp needs of a device: defined in cuda/memory.cpp, in a host build in stand_in.cpp.
#pragma once

#include <cstddef>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"

namespace seer::device {

/// Null if the device has too little memory left.
void* device_allocate(std::size_t bytes);
/// Accepts null. Waits until the device has finished all earlier work.
void device_free(void* data) noexcept;
/// Synchronises.
void device_zero(void* data, std::size_t bytes);
SystemMemory device_memory();
/// copy() on a device queue.
void device_copy(const Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes);

constexpr const char* kLessDeviceMemory =
    "set parallel.recompute = \"auto\" and parallel.memory_budget_bytes below the free memory, use parallel.shard on "
    "more "
    "ranks, or use a smaller batch";

}  // namespace seer::device
