// SPDX-License-Identifier: Apache-2.0
#include <regex>

#include "seer/config/config.hpp"

namespace seer::config {

std::optional<std::int64_t> walltime_seconds(const std::string& text) {
  if (text.empty() || text == "UNLIMITED" || text == "INFINITE") return 0;
  // d-hh[:mm[:ss]], hh:mm:ss, minutes[:ss]
  static const std::regex form(
      R"((?:(\d{1,4})-(\d{1,2})(?::(\d{1,2})(?::(\d{1,2}))?)?)|(\d{1,4}):(\d{1,2}):(\d{1,2})|(\d{1,6})(?::(\d{1,2}))?)");
  std::smatch found;
  if (!std::regex_match(text, found, form)) return std::nullopt;
  constexpr std::int64_t kUnits[] = {86400, 3600, 60, 1, 3600, 60, 1, 60, 1};
  std::int64_t seconds = 0;
  for (std::size_t i = 0; i < std::size(kUnits); ++i) {
    if (found[i + 1].matched) seconds += kUnits[i] * std::stoll(found[i + 1].str());
  }
  return seconds;  // 0: no limit, as for Slurm
}

}  // namespace seer::config
