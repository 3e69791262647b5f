// SPDX-License-Identifier: Apache-2.0
// MPI gets host memory only; device memory is sent over NCCL (device_communicator.hpp). An MPI that supports devices
// would silently stage a device pointer through the host; any other would crash.
#pragma once

namespace seer::comm {

#if defined(SEER_CUDA) && !defined(NDEBUG)
/// Throws Error(internal) for device memory.
void expect_host(const void* data);
#else
inline void expect_host(const void*) {}
#endif

}  // namespace seer::comm
