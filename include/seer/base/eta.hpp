// SPDX-License-Identifier: Apache-2.0
// How long work that is under way will still take.
#pragma once

#include <optional>
#include <string>

#include "seer/base/clock.hpp"

namespace seer {

/// Smooths the speed exponentially, so that one slow interval (a checkpoint, a busy moment) changes little, and a speed
/// that has changed for good is seen after some time constants. The first interval is left out: it holds start-up
/// costs.
class Eta {
 public:
  /// `total` is the amount of work that is left now, in any unit.
  explicit Eta(double total, double time_constant_s = 60) : left_(total), time_constant_s_(time_constant_s) {}

  /// `n` more of the work is done, in the time since the call before (or since the construction).
  void done(double n);
  /// The same where the caller has measured the time.
  void done(double n, double seconds);
  /// Nothing until a second interval has ended.
  std::optional<double> seconds_left() const;

 private:
  double left_, time_constant_s_;
  double work_ = 0, seconds_ = 0;  ///< sums over the intervals, older ones weighing less
  bool first_ = true;
  Clock clock_;
};

/// For people, two or more digits: "35 ms", "47 s", "7.5 minutes", "2.4 hours", "12 days".
std::string duration_text(double seconds);

}  // namespace seer
