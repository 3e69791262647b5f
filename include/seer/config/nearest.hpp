// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace seer::config {

/// The candidate with the least edit distance, for "did you mean"; "" where there are none.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace seer::config
