// SPDX-License-Identifier: Apache-2.0
// Start-up and end of everything below the ranks: device binding and Kokkos. Made once, before any kernel runs.
#pragma once

#include <string>

namespace seer::device {

class Session {
 public:
  /// After bind_device(). Where kernels_need_device() and none is bound, Kokkos is left alone: planning and reading
  /// files still work, whatever computes must not be called. `threads`: per rank; 0 keeps OMP_NUM_THREADS, or 1 where
  /// that is not set (one rank per core).
  explicit Session(int threads = 0);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

/// True where Kokkos was built for the device: it does not start without one.
bool kernels_need_device();
/// Threads a rank's libraries may use.
int threads();

/// Threads of one kind that a rank may be given on this node.
int most_threads();
/// The number in a variable such as OMP_NUM_THREADS; 0: not set, or empty. Error(input) where it is no number from 1 to
/// `most`.
int thread_count(const char* name, const char* value, int most);
/// Before Session, where the rank will compute. Error(input) for a number of threads that is none or far too large,
/// Error(device) where the system refuses so many. Returns a warning where they are more than the rank's cores, or "".
std::string require_threads();

/// "host: AMD EPYC ..., threads a rank 1, Kokkos Serial", in a device build after the device that is bound.
std::string describe();
/// Of this host, e.g. "Intel(R) Xeon(R) Processor"; "" where the system does not tell.
std::string processor();

}  // namespace seer::device
