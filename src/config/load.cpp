// SPDX-License-Identifier: Apache-2.0
// Turns TOML and --set into a Config. Does not stop at the first error: collects all messages and throws them together.
#include <charconv>
#include <cmath>
#include <sstream>

#include "schema.hpp"
#include "toml_file.hpp"

namespace seer::config {
namespace {

/// Formats a TOML value for a message.
std::string show(const toml::node& node) {
  if (const auto* text = node.as_string()) return quote(text->get());
  if (const auto* real = node.as_floating_point()) {
    double value = real->get();
    return write(&value);
  }
  if (node.is_table()) return "a table";
  if (const auto* list = node.as_array()) {
    if (list->size() > 8) return fmt::format("a list of {} entries", list->size());
    std::vector<std::string> entries;
    for (const auto& entry : *list) entries.push_back(show(entry));
    return fmt::format("[{}]", fmt::join(entries, ", "));
  }
  std::ostringstream out;
  out << toml::node_view(node);
  return out.str();
}

/// Parses the text as one TOML value: a table with the key "value"; empty if it is not one.
toml::table parse_value(const std::string& text) {
  try {
    toml::table table = toml::parse("value = " + text);
    if (table.size() == 1) return table;  // a line break may add more keys
  } catch (const toml::parse_error&) {
  }
  return {};
}

/// toml++ sorts keys by name, but messages follow the order of the lines.
std::vector<std::pair<toml::key, const toml::node*>> in_line_order(const toml::table& table) {
  std::vector<std::pair<toml::key, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(key, &node);
  std::ranges::stable_sort(entries, {}, [](const auto& entry) { return entry.first.source().begin.line; });
  return entries;
}

/// Sets *out. Returns false if the node has the wrong type or its value is not allowed.
template <class T>
bool assign(const Key& key, const toml::node& node, bool resolved, T* out) {
  const auto& rule = key.rule;
  std::optional<T> value = node.value_exact<T>();
  if constexpr (std::is_same_v<T, std::string>) {
    if (key.section == "model" && value == "4gf") value = "4.0gf";
    if (value && rule.form_of && !resolved) value = rule.form_of(*value);
    if (value && !rule.choices.empty() && !contains(rule.choices, *value)) value.reset();
  } else if constexpr (!std::is_same_v<T, bool>) {
    // The only type mismatch that is allowed: "1" for "1.0".
    if (const auto* whole = node.as_integer()) value = static_cast<T>(whole->get());
    const auto number = static_cast<double>(value.value_or(0));
    if (!std::isfinite(number) || !rule.contains(number)) value.reset();
    const auto word = node.value_exact<std::string>();
    if (word && !word->empty() && word == rule.word) value = rule.word_value;
  }
  if (value) *out = std::move(*value);
  return value.has_value();
}

template <class T>
bool assign(const Key& key, const toml::node& node, bool resolved, std::vector<T>* out) {
  const auto* list = node.as_array();
  if (list == nullptr || list->size() < key.rule.least_entries || list->size() > key.rule.most_entries) return false;
  std::vector<T> values(list->size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!assign(key, (*list)[i], resolved, &values[i])) return false;
  if (key.rule.ascending && !std::ranges::is_sorted(values)) return false;
  *out = std::move(values);
  return true;
}

std::string keys_of(const std::string& section) {
  std::vector<std::string> names;
  for (const auto& key : keys())
    if (key.section == section && key.overridden() == nullptr) names.push_back(key.name);
  if (section == "crops") names.emplace_back("augment");
  return fmt::format("{}", fmt::join(names, ", "));
}

class Loader {
 public:
  explicit Loader(bool resolved) { r_.resolved = resolved; }

  void read(const std::string& text, const std::string& name) {
    toml::table root;
    try {
      root = parse_toml(text, name);
    } catch (const Error& e) {
      r_.errors.emplace_back(e.what());
      return;
    }
    file_ = name;
    for (const auto& [key, node] : in_line_order(root)) {
      const std::string section(key.str());
      const auto place = place_of(key.source(), section);
      if (section == "crops") {
        set_all_crops(key.source(), *node);
      } else if (!contains(sections(), section) && (node->is_table() || node->is_array_of_tables())) {
        unknown_section(place, section);
      } else if (!contains(sections(), section)) {
        unknown(place, "a key outside of the sections", fmt::format("keys inside of {}", fmt::join(sections(), ", ")),
                nearest_key("", section));
      } else if (const auto* table = node->as_table()) {
        for (const auto& [name_of, value] : in_line_order(*table)) {
          const std::string of(name_of.str());
          set(section, 0, of, place_of(name_of.source(), section + "." + of), *value);
        }
      } else {
        r_.complain(place, show(*node), fmt::format("a table [{}] with {}", section, keys_of(section)));
      }
    }
    file_.reset();
  }

  /// "section.key=value", "crops.0.size=64" or "crops=[{...}, ...]". The value is TOML; bare words are strings.
  void override_with(const std::string& assignment) {
    const auto equals = assignment.find('=');
    const auto path = assignment.substr(0, equals), place = "--set " + path;
    if (equals == std::string::npos) return r_.complain(place, "no \"=\"", "section.key=value");
    const auto value = assignment.substr(equals + 1);
    const auto parsed = parse_value(value);
    // Bare words are strings as they stand. For string keys, so is text that TOML takes for a number, date or time.
    const auto bare = parse_value(quote(value));
    if (bare.empty()) return r_.complain(place, "text that is not UTF-8", "UTF-8");
    const auto& node = *(parsed.empty() ? bare : parsed).get("value");
    if (path == "crops") return set_all_crops({}, node);

    const auto dot = path.find('.');
    const auto section = path.substr(0, dot);
    if (dot == std::string::npos) {
      const auto first = std::ranges::find(keys(), path, &Key::section);
      return unknown(place, "no key", "section.key=value",
                     first != keys().end() ? first->path() : nearest_key("", path));
    }
    if (!contains(sections(), section)) return unknown_section(place, section);
    auto name = path.substr(dot + 1);
    std::size_t crop = 0;
    if (section == "crops") {
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), crop);
      if (error != std::errc() || *end != '.' || crop >= r_.config.crops.size()) {
        return r_.complain(
            place, path,
            fmt::format("crops.0.{{{0}}} to crops.{1}.{{{0}}}", keys_of("crops"), r_.config.crops.size() - 1));
      }
      name = std::string(end + 1);
    }
    const Key* key = find_key(section, name);
    const bool wants_string =
        key != nullptr && std::holds_alternative<std::string*>(key->field(r_.config, crop)) && !node.is_string();
    set(section, crop, name, place, wants_string ? *bare.get("value") : node);
  }

  /// Throws Error(input) with all errors.
  Config finish() {
    check_together(r_);
    if (r_.errors.empty()) return r_.config;
    const std::string remedy = "seer --help-config lists every key";
    // Every rank reads the same text, so every rank throws the same error.
    if (r_.errors.size() == 1) throw Error(ExitCode::input, r_.errors[0], remedy).as_agreed();
    throw Error(ExitCode::input, fmt::format("{} errors in the configuration ({}):\n  {}", r_.errors.size(), remedy,
                                             fmt::join(r_.errors, "\n  ")))
        .as_agreed();
  }

 private:
  /// How a message names the value of a path: by its line in the file, or by its --set.
  std::string place_of(const toml::source_region& source, const std::string& path) const {
    return file_ ? fmt::format("{}:{}: {}", *file_, source.begin.line, path) : "--set " + path;
  }

  void set_all_crops(const toml::source_region& source, const toml::node& node) {
    r_.places["crops"] = place_of(source, "crops");
    const auto* list = node.as_array();
    if (list == nullptr || list->empty() || !list->is_homogeneous<toml::table>()) {
      r_.failed.insert("crops");
      return r_.complain(r_.places["crops"], show(node), "one or more tables [[crops]] with " + keys_of("crops"));
    }
    r_.failed.erase("crops");
    std::erase_if(r_.places, [](const auto& place) { return place.first.starts_with("crops."); });
    r_.config.crops.assign(list->size(), Crops{});
    for (std::size_t i = 0; i < list->size(); ++i) {
      const auto set_here = [&](const toml::key& key, const std::string& name, const toml::node& value) {
        set("crops", i, name, place_of(key.source(), fmt::format("crops.{}.{}", i, name)), value);
      };
      for (const auto& [key, value] : in_line_order(*(*list)[i].as_table())) {
        const std::string name(key.str());
        const auto* inner = name == "augment" ? value->as_table() : nullptr;
        if (inner == nullptr) {
          set_here(key, name, *value);
          continue;
        }
        for (const auto& [inner_key, inner_value] : in_line_order(*inner))
          set_here(inner_key, kOverride + std::string(inner_key.str()), *inner_value);
      }
    }
  }

  /// `crop`: the table of [[crops]], for keys of that section.
  void set(const std::string& section, std::size_t crop, const std::string& name, const std::string& place,
           const toml::node& node) {
    const bool is_crop = section == "crops";
    const auto table = is_crop ? fmt::format("crops.{}", crop) : section;
    if (const Key* key = find_key(section, name)) return set(*key, crop, table + "." + name, place, node);
    const bool overrides = is_crop && name.starts_with(kOverride);
    const auto allowed = overrides ? "the keys of [augment] but mean and std"
                                   : fmt::format("in {}: {}", header(section), keys_of(section));
    if (overrides && find_key("augment", name.substr(name.find('.') + 1)) != nullptr)
      return r_.complain(place, "a key that is the same for all crops", allowed);
    // In a file, keys of the same section are written without it.
    auto near = nearest_key(section, name);
    if (near.starts_with(section + ".")) {
      near = near.substr(section.size() + 1);
      if (!file_) near = table + "." + near;
      if (file_ && overrides && near.starts_with(kOverride)) near = near.substr(std::string_view(kOverride).size());
    }
    unknown(place, "an unknown key", allowed, near);
  }

  void set(const Key& key, std::size_t crop, const std::string& path, const std::string& place,
           const toml::node& node) {
    r_.places[path] = place;
    const Field field = key.field(r_.config, crop);
    if (std::visit([&](auto* out) { return assign(key, node, r_.resolved, out); }, field)) {
      r_.failed.erase(path);  // an override repairs the value; the file's own error stays reported
      return;
    }
    r_.failed.insert(path);
    const auto text = node.value_exact<std::string>();
    if (text && contains(key.rule.later, *text)) {
      r_.errors.push_back(fmt::format("{}: found {}, which comes with a later version; allowed in this version: {}",
                                      place, quote(*text), key.allowed()));
    } else if (text && !key.rule.choices.empty()) {
      unknown(place, show(node), key.allowed(), nearest(*text, key.rule.choices));
    } else {
      r_.complain(place, show(node), key.allowed());
    }
  }

  void unknown(const std::string& place, const std::string& what, const std::string& allowed,
               const std::string& nearest_one) {
    r_.complain(place, what, fmt::format("{}, did you mean \"{}\"?", allowed, nearest_one));
  }
  void unknown_section(const std::string& place, const std::string& section) {
    unknown(place, "an unknown section", fmt::format("{}", fmt::join(sections(), ", ")), nearest(section, sections()));
  }

  Reading r_;
  std::optional<std::string> file_;  ///< that is read now
};

}  // namespace

Config parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  Loader loader(false);
  loader.read(text, name);
  for (const auto& assignment : overrides) loader.override_with(assignment);
  return loader.finish();
}

Config parse_resolved(const std::string& text, const std::string& name) {
  Loader loader(true);
  loader.read(text, name);
  return loader.finish();
}

Config load(const std::string& path, const std::vector<std::string>& overrides) {
  if (path.empty()) return parse("", "", overrides);
  const auto text = read_file(path);
  if (!text) {
    throw Error(ExitCode::input, fmt::format("{}: cannot read the configuration file", path),
                "check the path; inputs/ holds examples")
        .as_agreed();
  }
  return parse(*text, path, overrides);
}

}  // namespace seer::config
