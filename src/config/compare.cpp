// SPDX-License-Identifier: Apache-2.0
#include "seer/config/compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "schema.hpp"
#include "seer/base/error.hpp"

namespace seer::config {
namespace {

struct Line {
  std::string table, name, value;  ///< table: "swav", "crops.0"
  std::string path() const { return table + "." + name; }
  std::string section() const { return table.substr(0, table.find('.')); }
  const Key* key() const { return find_key(section(), name); }
};

/// Parses the output of to_toml(), which has one key per line.
std::vector<Line> lines_of(const std::string& toml) {
  std::vector<Line> out;
  std::string table, text;
  int crop = 0;
  for (std::istringstream in(toml); std::getline(in, text);) {
    if (text.starts_with("[[")) {
      table = fmt::format("{}.{}", text.substr(2, text.find(']') - 2), crop++);
    } else if (text.starts_with("[")) {
      table = text.substr(1, text.find(']') - 1);
    } else if (const auto equals = text.find(" = "); equals != std::string::npos) {
      out.push_back({table, text.substr(0, equals), text.substr(equals + 3)});
    }
  }
  return out;
}

/// The configuration with the keys that this version knows; nothing if it refuses their values.
std::optional<Config> config_of(const std::vector<Line>& lines) {
  std::string text, table;
  for (const auto& line : lines) {
    const auto* key = line.key();
    if (key == nullptr) continue;
    const auto section = line.section();
    if (line.table != table) text += section == "crops" ? "[[crops]]\n" : "[" + section + "]\n";
    table = line.table;
    text += fmt::format("{} = {}\n", line.name, line.value);
  }
  try {
    return parse_resolved(text, "the checkpoint's configuration");
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

Comparison compare(const std::string& stored, const Config& now) {
  Comparison out;
  const auto before = lines_of(stored), here = lines_of(to_toml(now)), standard = lines_of(to_toml(Config()));
  const auto values = [](const std::vector<Line>& lines) {
    std::map<std::string, std::string> all;
    for (const auto& line : lines) all[line.path()] = line.value;
    return all;
  };
  const auto was = values(before), is = values(here), usual = values(standard);
  for (const auto& line : here) {
    const auto path = line.path();
    if (!unused_because(*line.key(), now).empty()) continue;
    const auto found = was.find(path);
    const bool no_crops = found == was.end() && line.section() == "crops";
    if (found == was.end() && !no_crops) {
      if (usual.at(path) != line.value) out.unknown.push_back(fmt::format("{} = {}", path, line.value));
    } else if (no_crops || found->second != line.value) {
      out.differences.push_back({path, no_crops ? "nothing" : found->second, line.value, line.key()->change});
    }
  }
  for (const auto& line : before) {
    if (is.contains(line.path())) continue;
    if (const auto* key = line.key()) {
      out.differences.push_back({line.path(), line.value, "nothing", key->change});
    } else {
      out.unknown.push_back(fmt::format("{} = {}", line.path(), line.value));
    }
  }
  out.stored = config_of(before);
  return out;
}

bool covers(const std::string& name, const std::string& key) {
  return key == name || key.starts_with(name + ".");
}

void require_name(const std::string& name, const std::string& option) {
  const auto dot = name.find('.');
  const auto section = name.substr(0, dot);
  auto rest = dot == std::string::npos ? "" : name.substr(dot + 1);
  if (section == "crops" && !rest.empty()) {  // crops.<n> or crops.<n>.<key>
    const auto digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
    if (digits > 0) rest = digits < rest.size() && rest[digits] == '.' ? rest.substr(digits + 1) : rest.substr(digits);
  }
  const bool known = std::find(sections().begin(), sections().end(), section) != sections().end();
  if (known && (rest.empty() || find_key(section, rest) != nullptr)) return;
  auto near = nearest_key(section, rest);
  if (dot == std::string::npos) {  // the name of a section, or of a key without its section
    near = nearest(name, sections());
    const auto key = nearest_key("", name);
    if (edit_distance(key.substr(key.find('.') + 1), name) < edit_distance(near, name)) near = key;
  }
  throw Error(ExitCode::input,
              fmt::format("{} {}: no key or section is called so, did you mean \"{}\"?", option, name, near),
              "seer --help-config lists every key")
      .as_agreed();
}

}  // namespace seer::config
