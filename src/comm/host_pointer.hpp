// SPDX-License-Identifier: Apache-2.0
// MPI gets host memory only: what lies on a device travels over NCCL (device_communicator.hpp). An MPI that knows
// devices would take such a pointer without a word and stage it through the host, any other would crash.
#pragma once

namespace seer::comm {

#if defined(SEER_CUDA) && !defined(NDEBUG)
/// Error(internal) for memory of a device.
void expect_host(const void* data);
#else
inline void expect_host(const void*) {}
#endif

}  // namespace seer::comm
