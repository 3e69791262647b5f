// SPDX-License-Identifier: Apache-2.0
// One run at a time in a run folder: a lock that ends with the process that holds it, however it ends.
#pragma once

#include <string>

namespace seer::train {

class RunLock {
 public:
  /// Takes run_dir/lock and writes host and process into it. Error(input) where another process has it, naming that
  /// one. On file systems that cannot lock, a warning.
  explicit RunLock(const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace seer::train
