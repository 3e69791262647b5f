// SPDX-License-Identifier: Apache-2.0
// Turns TOML and --set into a Config. Does not stop at the first error: collects all messages and throws them together.
#include <fmt/format.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "schema.hpp"
#include "seer/base/error.hpp"
#include "seer/base/utf8.hpp"

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
  if (const auto* list = node.as_array(); list != nullptr && list->size() > 8) {
    return fmt::format("a list of {} entries", list->size());
  }
  std::ostringstream out;
  node.visit([&](const auto& n) {
    if constexpr (toml::is_array<decltype(n)>) {
      out << "[";
      for (std::size_t i = 0; i < n.size(); ++i) out << (i == 0 ? "" : ", ") << show(n[i]);
      out << "]";
    } else if constexpr (!toml::is_table<decltype(n)>) {
      out << n;
    }
  });
  return out.str();
}

/// Parses the text as one TOML value, wrapped in an array; empty if it is not one.
toml::array parse_value(const std::string& text) {
  try {
    auto table = toml::parse("value = " + text);
    if (auto* value = table.get("value"); table.size() == 1 && value != nullptr) {  // a line break may add more keys
      toml::array out;
      out.push_back(std::move(*value));
      return out;
    }
  } catch (const toml::parse_error&) {
  }
  return {};
}

/// toml++ sorts keys by name, but messages follow the order of the lines.
std::vector<std::pair<const toml::key*, const toml::node*>> in_line_order(const toml::table& table) {
  std::vector<std::pair<const toml::key*, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(&key, &node);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.first->source().begin.line < b.first->source().begin.line;
  });
  return entries;
}

class Loader {
 public:
  /// `resolved`: see parse_resolved().
  explicit Loader(bool resolved = false) : resolved_(resolved) {}
  void read(std::string text, const std::string& name);
  void override_with(const std::string& assignment);
  void check_together();
  void complain(const std::string& line) { errors_.push_back(line); }
  Config finish();

 private:
  /// Where a value was written, in the form that begins a message: "run.toml:7: swav.epsilon" or "--set swav.epsilon".
  using Place = std::string;
  void set_section(const std::string& section, const toml::table& table, const std::string& name);
  void set_all_crops(const toml::node& node, const std::function<Place(const toml::source_region&, std::string)>& at);
  void set(const Key& key, std::size_t crop, const std::string& path, const Place& place, const toml::node& node);
  bool accepts(const Key& key, double value) const { return std::isfinite(value) && key.rule.contains(value); }

  // Each returns false if the node has the wrong type or an entry is out of range.
  bool assign(const Key& key, bool* out, const toml::node& node) const;
  bool assign(const Key& key, std::int64_t* out, const toml::node& node) const;
  bool assign(const Key& key, double* out, const toml::node& node) const;
  bool assign(const Key& key, std::string* out, const toml::node& node) const;
  template <class T>
  bool assign(const Key& key, std::vector<T>* out, const toml::node& node) const;

  void unknown(const Place& place, const std::string& what, const std::string& allowed,
               const std::string& nearest_one) {
    complain(fmt::format("{}: found {}, allowed {}, did you mean \"{}\"?", place, what, allowed, nearest_one));
  }
  void complete_overrides();
  void check_crops();
  void check_model();
  void check_idle();

  bool resolved_;
  Config config_;
  std::vector<std::string> errors_;
  std::map<std::string, Place> places_;  ///< of every value that was set, valid or not
  std::set<std::string> failed_;
};

std::string keys_of(const std::string& section) {
  std::string text;
  for (const auto& key : keys()) {
    if (key.section == section && key.overridden() == nullptr) text += (text.empty() ? "" : ", ") + key.name;
  }
  return section == "crops" ? text + ", augment" : text;
}

/// Like nearest_key, but as written inside the section: the bare name of a key that belongs there.
std::string nearest_inside(const std::string& section, const std::string& name) {
  const std::string path = nearest_key(section, name), prefix = section + ".";
  return path.rfind(prefix, 0) == 0 ? path.substr(prefix.size()) : path;
}

/// Like nearest_key, with the number of the table if the answer is a key of [[crops]].
std::string nearest_crop_key(const std::string& name, std::size_t crop) {
  const std::string path = nearest_key("crops", name);
  return path.rfind("crops.", 0) == 0 ? fmt::format("crops.{}.{}", crop, path.substr(6)) : path;
}

std::string sections_text() {
  std::string text;
  for (const auto& section : sections()) text += (text.empty() ? "" : ", ") + section;
  return text;
}

bool Loader::assign(const Key&, bool* out, const toml::node& node) const {
  const auto* value = node.as_boolean();
  if (value == nullptr) return false;
  *out = value->get();
  return true;
}

bool Loader::assign(const Key& key, std::int64_t* out, const toml::node& node) const {
  const auto& word = key.rule.zero_word;
  if (const auto* text = node.as_string(); text != nullptr && !word.empty() && text->get() == word) {
    *out = 0;
    return true;
  }
  const auto* value = node.as_integer();
  if (value == nullptr || !accepts(key, static_cast<double>(value->get()))) return false;
  *out = value->get();
  return true;
}

bool Loader::assign(const Key& key, double* out, const toml::node& node) const {
  // The only type mismatch that is allowed: "1" for "1.0".
  double value = 0;
  if (const auto* real = node.as_floating_point()) {
    value = real->get();
  } else if (const auto* integer = node.as_integer()) {
    value = static_cast<double>(integer->get());
  } else {
    return false;
  }
  if (!accepts(key, value)) return false;
  *out = value;
  return true;
}

bool Loader::assign(const Key& key, std::string* out, const toml::node& node) const {
  const auto* value = node.as_string();
  if (value == nullptr) return false;
  const auto& rule = key.rule;
  std::optional<std::string> text = key.section == "model" && value->get() == "4gf" ? "4.0gf" : value->get();
  if (rule.form_of && !resolved_) text = rule.form_of(*text);
  if (!text) return false;
  if (!rule.choices.empty() && std::find(rule.choices.begin(), rule.choices.end(), *text) == rule.choices.end()) {
    return false;
  }
  *out = *text;
  return true;
}

template <class T>
bool Loader::assign(const Key& key, std::vector<T>* out, const toml::node& node) const {
  const auto* list = node.as_array();
  if (list == nullptr || list->size() < key.rule.least_entries || list->size() > key.rule.most_entries) return false;
  std::vector<T> values(list->size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!assign(key, &values[i], (*list)[i])) return false;
    if (key.rule.ascending && i > 0 && values[i] < values[i - 1]) return false;
  }
  *out = std::move(values);
  return true;
}

void Loader::set(const Key& key, std::size_t crop, const std::string& path, const Place& place,
                 const toml::node& node) {
  places_[path] = place;
  const Field field = key.field(config_, crop);
  if (std::visit([&](auto* out) { return assign(key, out, node); }, field)) {
    failed_.erase(path);  // an override repairs the value; the file's own error stays reported
    return;
  }
  failed_.insert(path);
  const auto& later = key.rule.later;
  const auto* text = node.as_string();
  if (text != nullptr && std::find(later.begin(), later.end(), text->get()) != later.end()) {
    return complain(fmt::format("{}: found {}, which comes with a later version; allowed in this version: {}", place,
                                quote(text->get()), key.allowed()));
  }
  std::string line = fmt::format("{}: found {}, allowed {}", place, show(node), key.allowed());
  if (text != nullptr && !key.rule.choices.empty()) {
    line += fmt::format(", did you mean {}?", quote(nearest(text->get(), key.rule.choices)));
  }
  complain(line);
}

void Loader::set_all_crops(const toml::node& node,
                           const std::function<Place(const toml::source_region&, std::string)>& at) {
  places_["crops"] = at(node.source(), "crops");
  failed_.insert("crops");
  const auto* list = node.as_array();
  const bool tables = list != nullptr && !list->empty() &&
                      std::all_of(list->begin(), list->end(), [](const toml::node& n) { return n.is_table(); });
  if (!tables) {
    return complain(fmt::format("{}: found {}, allowed one or more tables [[crops]] with {}", places_["crops"],
                                show(node), keys_of("crops")));
  }
  failed_.erase("crops");
  std::erase_if(places_, [](const auto& place) { return place.first.starts_with("crops."); });
  config_.crops.assign(list->size(), Crops{});
  for (std::size_t i = 0; i < list->size(); ++i) {
    const auto prefix = fmt::format("crops.{}.", i);
    for (const auto& [key_name, value] : in_line_order(*(*list)[i].as_table())) {
      const std::string name(key_name->str());
      const Place place = at(key_name->source(), prefix + name);
      if (name == "augment" && value->is_table()) {
        for (const auto& [inner, inner_value] : in_line_order(*value->as_table())) {
          const auto path = kOverride + std::string(inner->str());
          const Place inner_place = at(inner->source(), prefix + path);
          if (const Key* key = find_key("crops", path)) {
            set(*key, i, prefix + path, inner_place, *inner_value);
          } else {
            unknown(inner_place, "an unknown key", "the keys of [augment] but mean and std",
                    nearest_inside("augment", std::string(inner->str())));
          }
        }
      } else if (const Key* key = find_key("crops", name)) {
        set(*key, i, prefix + name, place, *value);
      } else {
        unknown(place, "an unknown key", "in [[crops]]: " + keys_of("crops"), nearest_inside("crops", name));
      }
    }
  }
}

void Loader::set_section(const std::string& section, const toml::table& table, const std::string& name) {
  for (const auto& [key_name, value] : in_line_order(table)) {
    const std::string key_text(key_name->str()), path = section + "." + key_text;
    const Place place = fmt::format("{}:{}: {}", name, key_name->source().begin.line, path);
    if (const Key* key = find_key(section, key_text)) {
      set(*key, 0, path, place, *value);
    } else {
      unknown(place, "an unknown key", fmt::format("in [{}]: {}", section, keys_of(section)),
              nearest_inside(section, key_text));
    }
  }
}

void Loader::read(std::string text, const std::string& name) {
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty())
    return complain(fmt::format("{}: {}", name, wrong));
  toml::table root;
  try {
    root = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    return complain(fmt::format("{}:{}: not TOML: {}", name, e.source().begin.line, e.description()));
  }
  for (const auto& [key, node] : in_line_order(root)) {
    const std::string section(key->str());
    const bool known = std::find(sections().begin(), sections().end(), section) != sections().end();
    const Place place = fmt::format("{}:{}: {}", name, key->source().begin.line, section);
    if (section == "crops") {
      set_all_crops(*node, [&](const toml::source_region& source, const std::string& path) {
        return fmt::format("{}:{}: {}", name, source.begin.line, path);
      });
    } else if (known && node->is_table()) {
      set_section(section, *node->as_table(), name);
    } else if (known) {
      complain(
          fmt::format("{}: found {}, allowed a table [{}] with {}", place, show(*node), section, keys_of(section)));
    } else if (node->is_table() || node->is_array_of_tables()) {
      unknown(place, "an unknown section", sections_text(), nearest(section, sections()));
    } else {
      unknown(place, "a key outside of the sections", "keys inside of " + sections_text(), nearest_key("", section));
    }
  }
}

/// "section.key=value", "crops.0.size=64" or "crops=[{...}, ...]". The value is TOML; bare words are strings.
void Loader::override_with(const std::string& assignment) {
  const auto equals = assignment.find('=');
  const std::string path = assignment.substr(0, equals);
  const Place place = "--set " + path;
  if (equals == std::string::npos) {
    return complain(fmt::format("{}: found no \"=\", allowed section.key=value", place));
  }
  const std::string value = assignment.substr(equals + 1);
  const auto parsed = parse_value(value);
  // Bare words are strings as they stand. For string keys, so is text that TOML takes for a number, date or time.
  const auto bare = parse_value(quote(value));
  if (bare.empty()) return complain(fmt::format("{}: found text that is not UTF-8, allowed UTF-8", place));

  if (path == "crops") {
    return set_all_crops((parsed.empty() ? bare : parsed)[0],
                         [](const toml::source_region&, const std::string& where) { return "--set " + where; });
  }
  const auto dot = path.find('.');
  const std::string section = path.substr(0, dot);
  if (dot == std::string::npos) {
    const auto of_section = std::find_if(keys().begin(), keys().end(), [&](const Key& k) { return k.section == path; });
    return unknown(place, "no key", "section.key=value",
                   of_section != keys().end() ? of_section->path() : nearest_key("", path));
  }
  if (std::find(sections().begin(), sections().end(), section) == sections().end()) {
    return unknown(place, "an unknown section", sections_text(), nearest(section, sections()));
  }
  std::string name = path.substr(dot + 1);
  std::size_t crop = 0;
  if (section == "crops") {
    const auto second = name.find('.');
    const std::string number = name.substr(0, second);
    const bool digits =
        !number.empty() && number.size() < 7 && number.find_first_not_of("0123456789") == std::string::npos;
    if (second == std::string::npos || !digits || std::stoul(number) >= config_.crops.size()) {
      return complain(fmt::format("{}: found {}, allowed crops.0.{{{}}} to crops.{}.{{{}}}", place, path,
                                  keys_of("crops"), config_.crops.size() - 1, keys_of("crops")));
    }
    crop = std::stoul(number);
    name = name.substr(second + 1);
  }
  const Key* key = find_key(section, name);
  if (key == nullptr) {
    const std::string header = section == "crops" ? "[[crops]]" : "[" + section + "]";
    return unknown(place, "an unknown key", fmt::format("in {}: {}", header, keys_of(section)),
                   section == "crops" ? nearest_crop_key(name, crop) : nearest_key(section, name));
  }
  const bool wants_string = std::holds_alternative<std::string*>(key->field(config_, crop));
  const bool use_bare = parsed.empty() || (wants_string && !parsed[0].is_string());
  set(*key, crop, path, place, (use_bare ? bare : parsed)[0]);
}

void Loader::check_crops() {
  for (const auto& path : failed_) {
    if (path.rfind("crops", 0) == 0) return;
  }
  std::int64_t total = 0;
  for (const auto& crops : config_.crops) total += crops.count;
  // The defaults are consistent, so only values that were set can have caused an error.
  const auto at = [&](const char* path) {
    const auto known = places_.find(path);
    return known != places_.end() ? known->second : std::string(path);
  };
  if (total < 2) {
    complain(
        fmt::format("{}: found {} crop in all, allowed 2 or more: one is learned from another", at("crops"), total));
  }
  if (failed_.contains("swav.crops_for_assign") || config_.method.kind != "swav") return;
  std::set<std::int64_t> seen;
  for (const auto crop : config_.swav.crops_for_assign) {
    if (crop >= total) {
      complain(fmt::format("{}: found crop {}, allowed integers from 0 to {}: [[crops]] make {} in all",
                           at("swav.crops_for_assign"), crop, total - 1, total));
    } else if (!seen.insert(crop).second) {
      complain(fmt::format("{}: found crop {} twice, allowed each once", at("swav.crops_for_assign"), crop));
    }
  }
}

void Loader::check_model() {
  static constexpr const char* kNumbers[] = {"depth", "w0", "wa", "wm", "group_width"};
  auto& model = config_.model;
  const auto set_here = [&](const std::string& name) { return places_.contains("model." + name); };
  for (const auto* name : kNumbers) {
    if (failed_.contains(std::string("model.") + name)) return;
  }
  if (failed_.contains("model.preset") || failed_.contains("model.trunk")) return;
  const auto nonzero = [&](const std::string& name) {
    const std::string text = write(find_key("model", name)->field(config_, 0));
    return text != "0" && text != "0.0";
  };
  const auto& of_depth = find_key("model", "depth")->rule.trunks;
  const bool has_numbers = std::ranges::find(of_depth, model.trunk) != of_depth.end();
  if (has_numbers && !set_here("preset") && std::any_of(std::begin(kNumbers), std::end(kNumbers), set_here)) {
    model.preset = "";
  }
  for (const auto& [trunk, names] : presets()) {
    if (trunk != model.trunk || (has_numbers && model.preset.empty())) continue;
    if (std::ranges::find(names, model.preset) != names.end()) continue;
    std::string allowed;
    for (const auto& name : names) allowed += (allowed.empty() ? "" : ", ") + quote(name);
    return complain(fmt::format("{}: found {}, allowed {} where model.trunk = {}",
                                set_here("preset") ? places_["model.preset"] : "model.preset", quote(model.preset),
                                allowed, quote(trunk)));
  }
  if (!model.preset.empty()) {
    for (const auto* name : kNumbers) {
      if (!nonzero(name) || !has_numbers) continue;  // check_idle() refuses those of other trunks
      return complain(
          fmt::format("{}: found a number beside model.preset = {}, allowed either a preset or, with preset "
                      "= \"\", all of depth, w0, wa, wm, group_width",
                      places_[std::string("model.") + name], quote(model.preset)));
    }
    return;
  }
  std::string missing, place = set_here("preset") ? places_["model.preset"] : "";
  for (const auto* name : kNumbers) {
    if (!set_here(name)) {
      missing += (missing.empty() ? "" : ", ") + std::string(name);
    } else if (place.empty()) {
      place = places_[std::string("model.") + name];
    }
  }
  if (!missing.empty()) {
    return complain(
        fmt::format("{}: found a model without preset and without {}, allowed a preset, or all of depth, w0, "
                    "wa, wm, group_width",
                    place, missing));
  }
  const auto demand = [&](bool good, const char* name, const char* allowed) {
    if (good) return;
    complain(fmt::format("{}: found {}, allowed {}", places_[std::string("model.") + name],
                         write(find_key("model", name)->field(config_, 0)), allowed));
  };
  demand(model.depth >= 1, "depth", "an integer >= 1 where there is no preset");
  demand(model.w0 >= 8 && model.w0 % 8 == 0, "w0", "a multiple of 8");
  demand(model.wm > 1, "wm", "a number > 1 where there is no preset");
  demand(model.group_width >= 1, "group_width", "an integer >= 1 where there is no preset");
}

/// Reports keys that would have no effect: whoever set them expects one.
void Loader::check_idle() {
  const auto& c = config_;
  const auto idle = [&](bool bad, const char* path, const std::string& found, const char* allowed) {
    if (bad && !failed_.contains(path) && places_.contains(path)) {
      complain(fmt::format("{}: found {}, allowed {}", places_.at(path), found, allowed));
    }
  };
  // A complete configuration lists the keys of all methods and trunks, so keys of the others are allowed at their
  // defaults.
  Config copy = c, standard;
  for (const auto& key : keys()) {
    const auto because = unused_because(key, c);
    if (because.empty()) continue;
    const auto found = write(key.field(copy, 0)), usual = write(key.field(standard, 0));
    idle(found != usual, key.path().c_str(), found, fmt::format("{} where {}", usual, because).c_str());
  }
  const auto flip = c.faults.flip_update, replay = c.guard.replay_every;
  idle(flip > 0 && (replay == 0 || flip % replay != 0), "faults.flip_update", std::to_string(flip),
       "an update that guard.replay_every does twice");
  idle(c.checkpoint.local_every_updates > 0 && c.checkpoint.local_dir.empty(), "checkpoint.local_every_updates",
       std::to_string(c.checkpoint.local_every_updates), "0 where there is no checkpoint.local_dir");
  idle(c.parallel.shard_group != 0 && c.parallel.shard == "none", "parallel.shard_group",
       std::to_string(c.parallel.shard_group), "0 where parallel.shard = \"none\"");
  const auto& folder = c.checkpoint.local_dir;
  for (auto at = folder.find('%'); at != std::string::npos; at = folder.find('%', at + 1)) {
    const bool known = at + 1 < folder.size() && (folder[at + 1] == 'h' || folder[at + 1] == 'n');
    idle(!known, "checkpoint.local_dir", quote(folder), "%h and %n after a %");
  }
}

/// Fills in, from [augment], the keys that a table of [[crops]] does not override.
void Loader::complete_overrides() {
  for (std::size_t i = 0; i < config_.crops.size(); ++i) {
    auto& own = config_.crops[i].augment;
    if (!own) continue;
    Config with = config_;
    own = config_.augment;
    for (const auto& key : keys()) {
      if (key.overridden() == nullptr || !places_.contains(fmt::format("crops.{}.{}", i, key.name))) continue;
      const auto copy = []<class A, class B>(A* to, const B* from) {
        if constexpr (std::is_same_v<A, B>) *to = *from;
      };
      std::visit(copy, key.field(config_, i), key.field(with, i));
    }
    if (own == config_.augment) own.reset();
  }
}

void Loader::check_together() {
  complete_overrides();
  if (!resolved_) check_idle();
  check_crops();
  check_model();
}

Config Loader::finish() {
  if (errors_.empty()) return config_;
  const std::string remedy = "seer --help-config lists every key";
  // Every rank reads the same text, so every rank throws the same error.
  if (errors_.size() == 1) throw Error(ExitCode::input, errors_[0], remedy).as_agreed();
  std::string text = fmt::format("{} errors in the configuration ({}):", errors_.size(), remedy);
  for (const auto& line : errors_) text += "\n  " + line;
  throw Error(ExitCode::input, text).as_agreed();
}

Config finish(Loader& loader, const std::vector<std::string>& overrides) {
  for (const auto& assignment : overrides) loader.override_with(assignment);
  loader.check_together();
  return loader.finish();
}

}  // namespace

Config parse(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  Loader loader;
  loader.read(text, name);
  return finish(loader, overrides);
}

Config parse_resolved(const std::string& text, const std::string& name) {
  Loader loader(true);
  loader.read(text, name);
  return finish(loader, {});
}

Config load(const std::string& path, const std::vector<std::string>& overrides) {
  if (path.empty()) return parse("", "", overrides);
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  // Opening a folder succeeds; reading from it does not.
  if (!file || (file.peek(), file.bad())) {
    throw Error(ExitCode::input, fmt::format("{}: cannot read the configuration file", path),
                "check the path; inputs/ holds examples")
        .as_agreed();
  }
  file.clear();
  text << file.rdbuf();
  return parse(text.str(), path, overrides);
}

}  // namespace seer::config
