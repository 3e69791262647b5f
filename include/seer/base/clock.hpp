// SPDX-License-Identifier: Apache-2.0
// Time: a stopwatch, an estimate of how long the remaining work will take, and durations as text.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

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

/// Smooths the speed exponentially: one slow interval (a checkpoint, a busy moment) changes the estimate little, and a
/// lasting change of speed shows after a few time constants. Ignores the first interval, which includes start-up costs.
class Eta {
 public:
  /// `total` is the amount of work left now, in any unit.
  explicit Eta(double total, double time_constant_s = 60) : left_(total), time_constant_s_(time_constant_s) {}

  /// Records `n` more units of work, done since the previous call (or since construction).
  void done(double n) { done(n, std::exchange(clock_, Clock()).seconds()); }
  /// The same, if the caller has measured the time.
  void done(double n, double seconds);
  /// Empty until the second interval has ended; 0 if no work is left.
  std::optional<double> seconds_left() const;

 private:
  double left_, time_constant_s_;
  double work_ = 0, seconds_ = 0;  ///< sums over the intervals; older ones weigh less
  bool first_ = true;
  Clock clock_;
};

/// Formats a duration for people, with two or more digits: "35 ms", "47 s", "7.5 minutes", "2.4 hours", "12 days".
std::string duration_text(double seconds);

}  // namespace seer
