// SPDX-License-Identifier: Apache-2.0
#include "seer/base/clock.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace seer {

void Eta::done(double n, double seconds) {
  // Even after an interval longer than the time constant, earlier intervals still dominate the speed.
  constexpr double kLeastMemory = 7.0 / 8;
  left_ -= n;
  if (first_) {
    first_ = false;
    return;
  }
  const double memory = std::max(std::exp(-seconds / time_constant_s_), kLeastMemory);
  work_ = memory * work_ + n;
  seconds_ = memory * seconds_ + seconds;
}

std::optional<double> Eta::seconds_left() const {
  if (left_ <= 0) return 0.0;
  if (!(work_ > 0)) return {};
  return left_ * seconds_ / work_;
}

std::string duration_text(double seconds) {
  const auto with_unit = [](double value, const char* unit) {
    return value < 1e-3 ? fmt::format("under 0.001 {}", unit)
           : value < 1  ? fmt::format("{:.2g} {}", value, unit)
           : value < 10 ? fmt::format("{:.1f} {}", value, unit)
                        : fmt::format("{:.0f} {}", value, unit);
  };
  if (seconds < 1) return with_unit(1e3 * seconds, "ms");
  if (seconds < 100) return with_unit(seconds, "s");
  if (seconds < 100 * 60) return with_unit(seconds / 60, "minutes");
  if (seconds < 48 * 3600) return with_unit(seconds / 3600, "hours");
  return with_unit(seconds / 86400, "days");
}

}  // namespace seer
