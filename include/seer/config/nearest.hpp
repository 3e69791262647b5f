// SPDX-License-Identifier: Apache-2.0
// What somebody who mistyped a word may have meant.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace seer::config {

/// The candidate with the least edit distance; "" where there are none.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);
/// Edit distance: insertions, deletions, substitutions and swaps of neighbours.
std::size_t edit_distance(const std::string& a, const std::string& b);

}  // namespace seer::config
