// SPDX-License-Identifier: Apache-2.0
// Settings that are allowed and hardly meant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::run {

/// What the settings meet.
struct Setting {
  std::uint64_t images = 0;  ///< of the data set
  std::int64_t updates = 0;  ///< of the run
  std::int64_t ranks = 1;
  std::optional<double> job_ends_s{};  ///< from now, where the scheduler tells
};

/// A line for each setting that never takes effect in this run, or that makes no sense with this data set or batch:
/// key, value, and the limit it is beyond.
std::vector<std::string> doubts(const config::Config& config, const Setting& run);

}  // namespace seer::run
