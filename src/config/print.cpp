// SPDX-License-Identifier: Apache-2.0
// Prints a configuration as TOML or as a table for people, and the help on all keys.
#include <fmt/format.h>

#include <algorithm>

#include "schema.hpp"

namespace seer::config {
namespace {

std::string write_double(double value) {
  // fmt's {} is the shortest text that reads back to the same bits; TOML needs it to look like a float.
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

template <class T, class Write>
std::string write_list(const std::vector<T>& values, Write write_one) {
  std::string text = "[";
  for (const auto& value : values) text += (text.size() == 1 ? "" : ", ") + write_one(value);
  return text + "]";
}

struct Writer {
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::int64_t* value) const { return std::to_string(*value); }
  std::string operator()(const double* value) const { return write_double(*value); }
  std::string operator()(const std::string* value) const { return quote(*value); }
  std::string operator()(const std::vector<std::int64_t>* value) const {
    return write_list(*value, [](std::int64_t v) { return std::to_string(v); });
  }
  std::string operator()(const std::vector<double>* value) const { return write_list(*value, write_double); }
};

/// True if the table of [[crops]] has its own value for `key`, which differs from that of [augment].
bool overrides(Config& config, std::size_t crop, const Key& key, const Key& augment) {
  return config.crops.at(crop).augment && write(key.field(config, crop)) != write(augment.field(config, 0));
}

/// Calls use(key, crop index) for every value, in order; crop tables one after another.
template <class Use>
void for_each_value(Config& config, Use use) {
  for (const auto& section : sections()) {
    const std::size_t tables = section == "crops" ? config.crops.size() : 1;
    for (std::size_t i = 0; i < tables; ++i) {
      for (const auto& key : keys()) {
        if (key.section != section) continue;
        if (const auto* augment = key.overridden(); augment == nullptr || overrides(config, i, key, *augment)) {
          use(key, i);
        }
      }
    }
  }
}

}  // namespace

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string write(const Field& field) {
  return std::visit(Writer{}, field);
}

std::string write(const Key& key, const Field& field) {
  const auto* const* integer = std::get_if<std::int64_t*>(&field);
  const bool word = integer != nullptr && **integer == 0 && !key.rule.zero_word.empty();
  return word ? quote(key.rule.zero_word) : write(field);
}

std::string to_toml(const Config& config) {
  Config copy = config;  // fields are pointers to mutable values
  std::string text, before;
  for_each_value(copy, [&](const Key& key, std::size_t crop) {
    const std::string table = key.section == "crops" ? fmt::format("[[crops]] {}", crop) : "[" + key.section + "]";
    if (table != before) {
      text += fmt::format("{}{}\n", text.empty() ? "" : "\n", key.section == "crops" ? "[[crops]]" : table);
      before = table;
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
  std::size_t name_width = 0, value_width = 0;
  for_each_value(copy, [&](const Key& key, std::size_t crop) {
    const bool is_crop = key.section == "crops";
    const bool ruled = key.path() == "schedule.total_updates" && config.schedule.epochs > 0;
    const std::string value = ruled ? "follows from schedule.epochs" : write(key, key.field(copy, crop));
    const bool changed = !ruled && ((is_crop && crop >= standard.crops.size()) ||
                                    value != write(key, key.field(standard, is_crop ? crop : 0)));
    if (wanted == Rows::changed && !changed) return;
    rows.push_back({is_crop ? fmt::format("crops.{}.{}", crop, key.name) : key.path(), value, changed});
    name_width = std::max(name_width, rows.back().name.size());
    value_width = std::max(value_width, value.size());
  });
  std::string text = wanted == Rows::all
                         ? "configuration (* = not the default)\n"
                         : "configuration, where it is not the default (all of it: config.toml, or --verbose)\n";
  for (const auto& row : rows) {
    text += row.changed && wanted == Rows::all
                ? fmt::format("  {:<{}}  {:<{}}  *\n", row.name, name_width, row.value, value_width)
                : fmt::format("  {:<{}}  {}\n", row.name, name_width, row.value);
  }
  if (config.crops.size() < standard.crops.size()) {
    text += fmt::format("  {:<{}}  {:<{}}  *\n", "crops", name_width, fmt::format("{} tables", config.crops.size()),
                        value_width);
  }
  return text;
}

std::string describe_keys() {
  Config standard;
  std::string text =
      "Keys of a configuration file (TOML), each with its default; any of them also as --set section.key=value.\n";
  for (const auto& section : sections()) {
    text += fmt::format("\n{}\n", section == "crops" ? "[[crops]]  one table a kind of crop" : "[" + section + "]");
    for (const auto& key : keys()) {
      if (key.section != section || key.overridden() != nullptr) continue;
      text += fmt::format("  {} = {}\n      {}\n      allowed: {}", key.name, write(key, key.field(standard, 0)),
                          key.help, key.allowed());
      for (const auto& value : key.rule.later) text += fmt::format("; {} in a later version", quote(value));
      text += "\n";
    }
    if (section == "crops")
      text += "  augment.KEY\n      any key of [augment] but mean and std, for these crops alone\n";
  }
  return text;
}

}  // namespace seer::config
