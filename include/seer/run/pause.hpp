// SPDX-License-Identifier: Apache-2.0
// A point of a run at which it waits, for tests that disturb runs: nobody has to guess how fast the machine is.
#pragma once

#include <cstdint>
#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::run {

class Pause {
 public:
  /// Collective. The environment variable SEER_PAUSE_AFTER of rank 0 says after which update; 0: before the first one.
  /// Error(input), agreed, where it holds no such number.
  Pause(const comm::Communicator& comm, const std::string& run_dir);

  /// Collective after that update, else nothing: once all ranks are here, rank 0 writes <run_dir>/PAUSED (a line for
  /// each rank: its number and its process), and every rank waits until that file is gone. Error(file), agreed.
  void after(std::int64_t update) const;

 private:
  const comm::Communicator& comm_;
  std::string sign_;
  std::int64_t update_ = -1;  ///< -1: never
};

}  // namespace seer::run
