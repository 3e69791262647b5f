// SPDX-License-Identifier: Apache-2.0
// The files that pack skipped, and the messages about them. Private to pack*.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "pack_output.hpp"
#include "pack_source.hpp"

namespace seer::data {

struct LeftOut {
  std::map<std::string, std::uint64_t> counts;  ///< for the summary
  std::vector<Reject> lines;                    ///< for rejects.jsonl: one per source and kind
  std::vector<std::string> warnings;
  std::string nothing, remedy;  ///< the error message and remedy if no file is left
  std::uint64_t archives = 0;
  bool samples = false;  ///< the archives are parts of a data set, not classes
};

LeftOut judge(const SourceList& sources, const SourceRules& rules, const std::vector<Tally>& tallies);

}  // namespace seer::data
