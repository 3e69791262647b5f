// SPDX-License-Identifier: Apache-2.0
// Loops over a rank's threads (OMP_NUM_THREADS). Kokkos' host back end may be a serial one, as Debian's is.
#pragma once

#include <cstdint>

namespace seer::device {

/// Threads that in_parallel uses: those of the rank if the caller is the process's first thread and no loop is running
/// on them, else 1. Readers and other threads beside the training have their own work in parallel already.
int loop_threads();

namespace detail {
void run_in_parallel(std::int64_t count, const void* body, void (*call)(const void* body, std::int64_t i));
}  // namespace detail

/// Calls body(i) for each i in [0, count), which must not depend on each other. body must not throw.
template <class Body>
void in_parallel(std::int64_t count, const Body& body) {
  detail::run_in_parallel(count, &body, [](const void* f, std::int64_t i) { (*static_cast<const Body*>(f))(i); });
}

}  // namespace seer::device
