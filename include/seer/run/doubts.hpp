// SPDX-License-Identifier: Apache-2.0
// Finds settings that are allowed but probably not intended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::run {

/// The run that the settings are for.
struct Setting {
  std::uint64_t images = 0;  ///< in the data set
  std::int64_t updates = 0;  ///< in the run
  std::int64_t ranks = 1;
  std::optional<double> job_ends_s{};  ///< from now, if the scheduler says so
};

/// Returns a line for each setting that never takes effect in this run, or that makes no sense with this data set or
/// batch: key, value, and the limit that it exceeds.
std::vector<std::string> doubts(const config::Config& config, const Setting& run);

}  // namespace seer::run
