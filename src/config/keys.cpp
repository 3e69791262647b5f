// SPDX-License-Identifier: Apache-2.0
// Searches the table of keys, describes it, prints and compares configurations, and finds the word that was meant.
#include <cstring>
#include <map>
#include <sstream>

#include "schema.hpp"

namespace seer::config {
namespace {

std::string range_text(const Rule& rule) {
  const bool low = rule.low > -Rule::kNoLimit, high = rule.high < Rule::kNoLimit;
  if (low && high && !rule.open_low && !rule.open_high) return fmt::format(" from {} to {}", rule.low, rule.high);
  std::string text;
  if (low) text += fmt::format(" {} {}", rule.open_low ? ">" : ">=", rule.low);
  if (high) text += fmt::format("{} {} {}", low ? " and" : "", rule.open_high ? "<" : "<=", rule.high);
  return text;
}

std::string text_of(const std::string& value) {
  return quote(value);
}
std::string text_of(auto value) {
  // fmt's {} is the shortest text that reads back to the same bits; TOML needs it to look like a float.
  auto text = fmt::format("{}", value);
  if (std::is_floating_point_v<decltype(value)> && text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}
template <class T>
std::string text_of(const std::vector<T>& values) {
  std::vector<std::string> texts;
  for (const auto& value : values) texts.push_back(text_of(value));
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

/// Calls use(key, crop index) for every value, in order; crop tables one after another. Leaves out the keys of a table
/// that override nothing: they have the values of [augment].
void for_each_value(Config& config, const auto& use) {
  for (const auto& section : sections()) {
    const std::size_t tables = section == "crops" ? config.crops.size() : 1;
    for (std::size_t i = 0; i < tables; ++i) {
      for (const auto& key : keys()) {
        if (key.section != section) continue;
        const auto* augment = key.overridden();
        const bool same = augment != nullptr && (!config.crops.at(i).augment ||
                                                 write(key.field(config, i)) == write(augment->field(config, 0)));
        if (!same) use(key, i);
      }
    }
  }
}

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
  for (std::istringstream in(toml); std::getline(in, text);)
    if (text.starts_with("[["))
      table = fmt::format("{}.{}", text.substr(2, text.find(']') - 2), crop++);
    else if (text.starts_with("["))
      table = text.substr(1, text.find(']') - 1);
    else if (const auto equals = text.find(" = "); equals != std::string::npos)
      out.push_back({table, text.substr(0, equals), text.substr(equals + 3)});
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

const std::vector<std::string>& sections() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& key : keys()) out.push_back(key.section);
    out.erase(std::ranges::unique(out).begin(), out.end());
    return out;
  }();
  return names;
}

const Key* find_key(const std::string& section, const std::string& name) {
  const auto found =
      std::ranges::find_if(keys(), [&](const Key& key) { return key.section == section && key.name == name; });
  return found == keys().end() ? nullptr : &*found;
}

std::string unused_because(const Key& key, const Config& config) {
  const auto& kind = config.method.kind;
  const bool of_labels = key.section == "finetune" || key.path() == "data.test_shards" ||
                         key.path() == "data.fraction" || key.path() == "data.per_class" ||
                         key.path() == "data.subset_seed";
  const auto section = of_labels ? "supervised" : key.section;
  const bool of_method = contains(find_key("method", "kind")->rule.choices, section);
  const auto& trunks = key.rule.trunks;
  if (section == "continue" && config.model.init_from.empty()) return "model.init_from = \"\"";
  if (key.path() == "continue.prototypes" && kind != "swav") return "method.kind = " + quote(kind);
  if (of_method && section != kind) return "method.kind = " + quote(kind);
  if (!trunks.empty() && !contains(trunks, config.model.trunk)) return "model.trunk = " + quote(config.model.trunk);
  return "";
}

const Key* Key::overridden() const {
  return section == "crops" && name.starts_with(kOverride) ? find_key("augment", name.substr(std::strlen(kOverride)))
                                                           : nullptr;
}

std::string Key::allowed() const {
  constexpr const char* kTypes[] = {"true or false", "integer", "number", "string", "integers", "numbers"};
  Config sample;
  const std::string of = kTypes[field(sample, 0).index()];
  if (of == "true or false") return of;
  if (of == "string") return rule.form_of ? rule.form : rule.choices.empty() ? "a string" : quoted(rule.choices);
  if (of == "number") return "a number" + range_text(rule);
  if (of == "integer") return "an integer" + range_text(rule) + (rule.word.empty() ? "" : " or " + quote(rule.word));
  std::string text = "a list of ";
  if (rule.least_entries == rule.most_entries)
    text += fmt::format("{} ", rule.least_entries);
  else if (rule.least_entries > 0)
    text += fmt::format("{} or more ", rule.least_entries);
  return text + (rule.ascending ? "ascending " : "") + of + range_text(rule);
}

std::string nearest_key(const std::string& section, const std::string& name) {
  const auto score = [&](const Key& key) {
    // "hang" should find "hang_seconds", however many letters it lacks.
    const bool part = name.size() >= 3 && key.name.find(name) != std::string::npos;
    const std::size_t distance = edit_distance(name, key.name);
    return (part ? std::min<std::size_t>(distance, 1) : distance) + (key.section == section ? 0 : 1);
  };
  return std::ranges::min_element(keys(), {}, score)->path();
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  const auto best =
      std::ranges::min_element(candidates, {}, [&](const auto& candidate) { return edit_distance(word, candidate); });
  return best == candidates.end() ? "" : *best;
}

Error unknown(const std::string& key, const std::string& value, const std::vector<std::string>& known) {
  return Error(ExitCode::input, fmt::format("{} = \"{}\" is not known", key, value),
               fmt::format("known: {}", fmt::join(known, ", ")))
      .as_agreed();
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    else
      out += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return out + '"';
}

std::string quoted(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : ", ") + quote(text);
  return out;
}

std::string write(const Field& field) {
  return std::visit([](const auto* value) { return text_of(*value); }, field);
}

std::string write(const Key& key, const Field& field) {
  const auto text = write(field);
  return !key.rule.word.empty() && text == std::to_string(key.rule.word_value) ? quote(key.rule.word) : text;
}

std::string to_toml(const Config& config) {
  Config copy = config;  // fields are pointers to mutable values
  std::string text;
  std::pair<std::string, std::size_t> table;  // the one that is being written: section and number
  for_each_value(copy, [&](const Key& key, std::size_t crop) {
    if (table != std::pair(key.section, crop)) {
      table = {key.section, crop};
      text += (text.empty() ? "" : "\n") + header(key.section) + "\n";
    }
    text += fmt::format("{} = {}\n", key.name, write(key, key.field(copy, crop)));
  });
  return text;
}

std::string to_table(const Config& config, Rows wanted) {
  Config copy = config, standard;
  struct Row {
    std::string name, value;
    bool changed;
  };
  std::vector<Row> rows;
  for_each_value(copy, [&](const Key& key, std::size_t crop) {
    const bool is_crop = key.section == "crops";
    const bool ruled = key.path() == "schedule.total_updates" && config.schedule.epochs > 0;
    const std::string value = ruled ? "follows from schedule.epochs" : write(key, key.field(copy, crop));
    const bool changed = !ruled && ((is_crop && crop >= standard.crops.size()) ||
                                    value != write(key, key.field(standard, is_crop ? crop : 0)));
    if (wanted == Rows::changed && !changed) return;
    rows.push_back({is_crop ? fmt::format("crops.{}.{}", crop, key.name) : key.path(), value, changed});
  });
  if (config.crops.size() < standard.crops.size())
    rows.push_back({"crops", fmt::format("{} tables", config.crops.size()), true});
  std::size_t name_width = 0, value_width = 0;
  for (const auto& row : rows) {
    name_width = std::max(name_width, row.name.size());
    value_width = std::max(value_width, row.value.size());
  }
  std::string text = wanted == Rows::all
                         ? "configuration (* = not the default)\n"
                         : "configuration, where it is not the default (all of it: config.toml, or --verbose)\n";
  for (const auto& row : rows) {
    const bool marked = row.changed && (wanted == Rows::all || row.name == "crops");
    text += fmt::format("  {:<{}}  {:<{}}{}\n", row.name, name_width, row.value, marked ? value_width : 0,
                        marked ? "  *" : "");
  }
  return text;
}

std::string describe_keys() {
  Config standard;
  std::string text =
      "Keys of a configuration file (TOML) with their defaults. On the command line: --set section.key=value.\n";
  for (const auto& section : sections()) {
    text += fmt::format("\n{}{}\n", header(section), section == "crops" ? "  one table per kind of crop" : "");
    for (const auto& key : keys()) {
      if (key.section != section || key.overridden() != nullptr) continue;
      text += fmt::format("  {} = {}\n      {}\n      allowed: {}", key.name, write(key, key.field(standard, 0)),
                          key.help, key.allowed());
      for (const auto& value : key.rule.later) text += fmt::format("; {} in a later version", quote(value));
      text += "\n";
    }
    if (section == "crops")
      text += "  augment.KEY\n      any key of [augment] except mean and std, for these crops only\n";
  }
  return text;
}

Comparison compare(const std::string& stored, const Config& now) {
  Comparison out;
  const auto before = lines_of(stored), here = lines_of(to_toml(now));
  const auto values = [](const std::vector<Line>& lines) {
    std::map<std::string, std::string> all;
    for (const auto& line : lines) all[line.path()] = line.value;
    return all;
  };
  const auto was = values(before), is = values(here), usual = values(lines_of(to_toml(Config())));
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
    if (const auto* key = line.key())
      out.differences.push_back({line.path(), line.value, "nothing", key->change});
    else
      out.unknown.push_back(fmt::format("{} = {}", line.path(), line.value));
  }
  out.stored = config_of(before);
  return out;
}

void require_name(const std::string& name, const std::string& option) {
  const auto dot = name.find('.');
  const auto section = name.substr(0, dot);
  auto rest = dot == std::string::npos ? "" : name.substr(dot + 1);
  if (section == "crops" && !rest.empty()) {  // crops.<n> or crops.<n>.<key>
    const auto digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
    if (digits > 0) rest = digits < rest.size() && rest[digits] == '.' ? rest.substr(digits + 1) : rest.substr(digits);
  }
  if (contains(sections(), section) && (rest.empty() || find_key(section, rest) != nullptr)) return;
  auto near = nearest_key(section, rest);
  if (dot == std::string::npos) {  // the name of a section, or of a key without its section
    near = nearest(name, sections());
    const auto key = nearest_key("", name);
    if (edit_distance(key.substr(key.find('.') + 1), name) < edit_distance(near, name)) near = key;
  }
  throw Error(ExitCode::input,
              fmt::format("{} {}: no key or section has this name, did you mean \"{}\"?", option, name, near),
              "seer --help-config lists every key")
      .as_agreed();
}

}  // namespace seer::config
