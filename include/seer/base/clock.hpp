// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>

namespace seer {
/// A monotonic stopwatch, milliseconds.
class Clock {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(now() - start_).count(); }
  double seconds() const { return ms() / 1000; }
  void restart() { start_ = now(); }

 private:
  static std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  std::chrono::steady_clock::time_point start_ = now();
};
}  // namespace seer
