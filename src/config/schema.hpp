// SPDX-License-Identifier: Apache-2.0
// Private to config: one row for every key of the configuration. Loading, printing and help all walk this table, so a
// new key is one member in config.hpp and one row in schema.cpp. keys.cpp searches the table.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::config {

/// Where a key's value lives in a Config.
using Field =
    std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::int64_t>*, std::vector<double>*>;

/// What a value, or each entry of a list, may be.
struct Rule {
  static constexpr double kNoLimit = std::numeric_limits<double>::infinity();

  double low = -kNoLimit, high = kNoLimit;
  bool open_low = false;               ///< low itself is not allowed
  bool open_high = false;              ///< high itself is not allowed
  std::vector<std::string> choices{};  ///< strings: the only values; empty = any
  std::string word{};                  ///< integers: the text that stands for word_value, whatever the range; "" = none
  std::int64_t word_value = 0;         ///< see `word`
  std::vector<std::string> later{};    ///< values planned for a later version
  std::size_t least_entries = 0, most_entries = std::numeric_limits<std::size_t>::max();
  bool ascending = false;  ///< lists: no entry is below the one before it
  /// Strings with a special form: returns the converted value, or nothing if it is refused. `form` describes it.
  std::function<std::optional<std::string>(const std::string&)> form_of{};
  std::string form{};
  /// The only trunks that use the key; empty: all use it.
  std::vector<std::string> trunks{};

  bool contains(double value) const {
    return (open_low ? value > low : value >= low) && (open_high ? value < high : value <= high);
  }
};

struct Key {
  std::string section, name;
  /// `crop` chooses the table of [[crops]]; other sections ignore it. For a key that overrides [augment], the call
  /// gives the table its own augmentation.
  std::function<Field(Config&, std::size_t crop)> field;
  Rule rule;
  std::string help;
  Change change;

  std::string path() const { return section + "." + name; }
  /// The key of [augment] that this one of [[crops]] overrides; nullptr for other keys.
  const Key* overridden() const;
  /// The allowed values, for messages and help: "an integer >= 1", "\"lars\" or \"sgd\"", ...
  std::string allowed() const;
};

/// Prefix of the keys that override [augment].
inline constexpr const char* kOverride = "augment.";

/// All keys, in the order in which files are written.
const std::vector<Key>& keys();
/// Names of the sections, same order.
const std::vector<std::string>& sections();
/// The row of section.name, or nullptr.
const Key* find_key(const std::string& section, const std::string& name);
/// Why this configuration does not use the key: "method.kind = \"swav\""; "" if it does. A method's section belongs to
/// that method alone; other keys have Rule::trunks.
std::string unused_because(const Key& key, const Config& config);

/// The path of the known key nearest to section.name: edit distance of the names, one more for another section.
std::string nearest_key(const std::string& section, const std::string& name);

/// A value as TOML: doubles in the shortest form that reads back to the same bits.
std::string write(const Field& field);
/// The same for a key, whose rule may have a word for the value.
std::string write(const Key& key, const Field& field);
std::string quote(const std::string& text);
/// [swav], [[crops]]
inline std::string header(const std::string& section) {
  return section == "crops" ? "[[crops]]" : "[" + section + "]";
}
/// "a", "b", "c"
std::string quoted(const std::vector<std::string>& texts);
inline bool contains(const std::vector<std::string>& texts, const std::string& text) {
  return std::ranges::find(texts, text) != texts.end();
}

/// The values of model.trunk, each with its values of model.preset.
const std::map<std::string, std::vector<std::string>>& presets();

/// A configuration while it is read, with what the checks and their messages need.
struct Reading {
  Config config;
  bool resolved = false;  ///< see parse_resolved()
  /// By path ("crops.0.size"): where each value, valid or not, was written: "run.toml:7: PATH" or "--set PATH".
  std::map<std::string, std::string> places;
  std::set<std::string> failed;     ///< paths of values that were refused
  std::vector<std::string> errors;  ///< all errors are thrown together

  void complain(const std::string& place, const std::string& found, const std::string& allowed) {
    errors.push_back(fmt::format("{}: found {}, allowed {}", place, found, allowed));
  }
  bool was_set(const std::string& path) const { return places.contains(path); }
  std::string place(const std::string& path) const { return was_set(path) ? places.at(path) : path; }
};

/// Completes the overrides of [augment], and checks what no key alone can tell: whether the values fit each other.
void check_together(Reading& reading);

}  // namespace seer::config
