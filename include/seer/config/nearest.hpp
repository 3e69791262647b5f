// SPDX-License-Identifier: Apache-2.0
// Finds the word that a mistyped word may have meant.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace seer::config {

/// The candidate with the smallest edit distance; "" if there are no candidates.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);
/// Edit distance: insertions, deletions, substitutions and swaps of neighbours.
std::size_t edit_distance(const std::string& a, const std::string& b);

}  // namespace seer::config
