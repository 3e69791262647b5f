// SPDX-License-Identifier: Apache-2.0
// Collects warnings about settings that are allowed but probably a mistake.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

namespace seer::config {

class Doubts {
 public:
  /// For a run of `updates` updates.
  explicit Doubts(std::int64_t updates) : updates_(updates) {}
  template <class T>
  void when(bool doubtful, const char* key, const T& value, const std::string& why) {
    if (doubtful) lines.push_back(fmt::format("{} = {}: {}", key, value, why));
  }
  /// Warns if the run ends before the setting has an effect. `update`: number of completed updates at which the effect
  /// begins.
  void never(const char* key, std::int64_t value, std::int64_t update, const char* what) {
    when(update > updates_, key, value, fmt::format("{}, for the run has {} updates", what, updates_));
  }
  std::vector<std::string> lines;

 private:
  std::int64_t updates_;
};

}  // namespace seer::config
