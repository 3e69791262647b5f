// SPDX-License-Identifier: Apache-2.0
// Compares a configuration with that of the checkpoint that a run resumes from, and says what each difference means.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::config {

/// What a changed value of a key means for a resumed run. The table of keys sets it for each key.
enum class Change {
  free,     ///< the same run, with other paths, ranks, memory, logs or monitoring
  meaning,  ///< a different run: loss, images, step
  tensors,  ///< a different run with other parameters, so that no checkpoint fits
  length,   ///< another number of updates, which changes the learning rate
};

struct Difference {
  std::string key, was, is;  ///< values as TOML; "nothing" if that side lacks this table of [[crops]]
  Change change;
};

struct Comparison {
  std::vector<Difference> differences;  ///< of keys that the new configuration uses, in the order of the keys
  /// "section.key = value" for each key that only one side's version knows. For keys unknown to the stored version,
  /// only values that differ from the default: the default stands for the behaviour before the key existed.
  std::vector<std::string> unknown;
  std::optional<Config> stored;  ///< nothing if this version refuses its values
};

/// `stored`: text that to_toml() of this or another version wrote.
Comparison compare(const std::string& stored, const Config& now);

/// True if `name` is the key or a group that holds it: "crops.0.size" is covered by itself, "crops.0" and "crops".
bool covers(const std::string& name, const std::string& key);
/// Throws Error(input), agreed, with the nearest name if no key or section has this name. The message begins with
/// `option`.
void require_name(const std::string& name, const std::string& option);

}  // namespace seer::config
