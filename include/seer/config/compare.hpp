// SPDX-License-Identifier: Apache-2.0
// What of a configuration is not as in the checkpoint that a run goes on from, and what that means.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::config {

/// What another value of a key means to a run that goes on. The table of keys has it of each.
enum class Change {
  free,     ///< the same run: its places, ranks, memory, records, how it is watched
  meaning,  ///< another run: network, loss, images, step
  length,   ///< another end, which moves the learning rate
};

struct Difference {
  std::string key, was, is;  ///< values as TOML, "nothing" where that table of [[crops]] is not there
  Change change;
};

struct Comparison {
  std::vector<Difference> differences;  ///< in the order of the keys
  /// "section.key = value" of what the other version does not know, on either side; of ours only what is not the
  /// default, which stands for how it was before there was such a key.
  std::vector<std::string> unknown;
  std::optional<Config> stored;  ///< nothing where this version refuses its values; places are left out
};

/// `stored`: the text of to_toml(), of this or another version.
Comparison compare(const std::string& stored, const Config& now);

/// Whether `name` is the key or what holds it: "crops.0.size" is covered by itself, "crops.0" and "crops".
bool covers(const std::string& name, const std::string& key);
/// Error(input), agreed, with the nearest name, where no key or section is called so. `option` is what begins the
/// message.
void require_name(const std::string& name, const std::string& option);

}  // namespace seer::config
