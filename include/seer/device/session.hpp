// SPDX-License-Identifier: Apache-2.0
// Start-up and end of everything below the ranks: device binding and Kokkos. Made once, before any kernel runs.
#pragma once

#include <string>

namespace seer::device {

class Session {
 public:
  /// `threads`: per rank; 0 keeps OMP_NUM_THREADS, or 1 where that is not set (one rank per core).
  explicit Session(int threads = 0);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

/// Threads a rank's libraries may use.
int threads();
/// "host: AMD EPYC ..., 1 thread a rank, Kokkos Serial"
std::string describe();

}  // namespace seer::device
