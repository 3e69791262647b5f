// SPDX-License-Identifier: Apache-2.0
// Start-up and end of OpenMP's threads and Kokkos. Created once, before any kernel runs.
#pragma once

#include <string>

namespace seer::device {

class Session {
 public:
  /// Call after bind_device(). If kernels_need_device() and no device is bound, Kokkos does not start: planning and
  /// reading files still work, but nothing that computes may be called. `threads`: per rank; 0 keeps OMP_NUM_THREADS,
  /// or 1 if that is not set (one rank per core).
  explicit Session(int threads = 0);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

/// True if Kokkos was built for the device. It then does not start without one.
bool kernels_need_device();
/// Number of threads that a rank's libraries may use.
int threads();

/// Most threads of one kind that a rank may have on this node.
int most_threads();
/// Parses a variable such as OMP_NUM_THREADS; 0 if it is not set or empty. Throws Error(input) if it is not a number
/// from 1 to `most`.
int thread_count(const char* name, const char* value, int most);
/// Call before Session if the rank will compute. Throws Error(input) if the number of threads is invalid or far too
/// large, Error(device) if the system refuses so many. Returns a warning if there are more threads than cores of the
/// rank, else "".
std::string require_threads();

/// "host: AMD EPYC ..., threads per rank 1, Kokkos Serial"; before it a line for the bound device, if there is one.
std::string describe();
/// The processor of this host, e.g. "Intel(R) Xeon(R) Processor"; "" if unknown.
std::string processor();

}  // namespace seer::device
