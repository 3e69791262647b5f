// SPDX-License-Identifier: Apache-2.0
// Makes a run wait at a chosen update, for tests that disturb runs: they need not guess how fast the machine is.
#pragma once

#include <cstdint>
#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::run {

class Pause {
 public:
  /// Collective. Rank 0's environment variable SEER_PAUSE_AFTER is the update to wait after; 0: before the first one.
  /// Error(input), agreed, if it is no such number.
  Pause(const comm::Communicator& comm, const std::string& run_dir);

  /// At that update: collective. Once all ranks are here, rank 0 writes <run_dir>/PAUSED (one line per rank: its number
  /// and its process), and every rank waits until that file is gone. Error(file), agreed. At others: does nothing.
  void after(std::int64_t update) const;

 private:
  const comm::Communicator& comm_;
  std::string sign_;
  std::int64_t update_ = -1;  ///< -1: never
};

}  // namespace seer::run
