// SPDX-License-Identifier: Apache-2.0
#include "shard_set.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "pack_parts.hpp"
#include "seer/base/log.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kManifestFormat = "seer-shards";
constexpr const char* kManifestEnd = ".manifest.json";
constexpr std::size_t kNumbersNamed = 8;

std::string folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path().string() : ".";
}
std::string file_of(const fs::path& path) {
  return path.filename().string();
}

/// The shards of one name in a folder, as one pack writes them.
using Name = std::pair<std::string, std::string>;  // folder, name
std::optional<Name> name_of(const std::string& path) {
  const auto parsed = parse_shard_name(file_of(path));
  return parsed ? std::optional<Name>({folder_of(path), parsed->first}) : std::nullopt;
}
std::string text_of(const Name& name) {
  return fmt::format("{}/{}-*.h5", name.first, name.second);
}

constexpr const char* kPackAgain =
    "pack again with --replace, or get the missing files; to use a part, name its files one by one or by a pattern";

std::vector<std::string> names_with_manifest(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const auto file = entry.path().filename().string();
    if (file.ends_with(kManifestEnd)) names.push_back(file.substr(0, file.size() - std::strlen(kManifestEnd)));
  }
  return names;
}

std::string manifest_path(const std::string& folder, const std::string& name) {
  return folder + "/" + name + kManifestEnd;
}

void want_complete(const Name& name, const Manifest& manifest) {
  if (manifest.complete) return;
  fail(fmt::format("{}: the pack that wrote these files did not finish", text_of(name)),
       "run that pack again: with --append if it had --append, else with --replace");
}

/// Checks that the files of one name are those that its manifest lists.
void check_manifest(const Name& name, const Manifest& manifest, const std::map<std::string, const ShardInfo*>& here,
                    const std::set<std::string>& everywhere, bool whole) {
  want_complete(name, manifest);
  const auto path = manifest_path(name.first, name.second);
  std::map<std::string, const Manifest::File*> listed;
  for (const auto& file : manifest.files) listed[file.name] = &file;
  for (const auto& [file, info] : here) {
    const auto at = listed.find(file);
    if (at == listed.end())
      fail(fmt::format("{} is not among the {} files of {}: it belongs to another pack", info->path, listed.size(),
                       path),
           "remove it, or move it to another folder");
    const auto& wanted = *at->second;
    if (wanted.set != info->set.id || wanted.images != info->images || wanted.bytes != info->file_bytes)
      fail(fmt::format("{} is not the file that {} lists: it belongs to another pack", info->path, path), kPackAgain);
  }
  if (!whole) return;
  const auto is_missing = [&](const auto& file) { return !everywhere.contains(file.first); };
  if (const auto missing = std::ranges::count_if(listed, is_missing); missing > 0)
    fail(fmt::format("{}: {} of the {} files that {} lists are missing; the first missing file is {}", text_of(name),
                     missing, listed.size(), path, std::ranges::find_if(listed, is_missing)->first),
         kPackAgain);
}

/// The shards of one set, wherever they lie.
struct Set {
  std::uint64_t shards = 0;
  std::map<std::uint64_t, const ShardInfo*> numbers;
  const ShardInfo* twice = nullptr;
  std::uint64_t copies = 0;
  bool whole = false;  ///< some of it lies in a folder that was named as a whole
  std::set<Name> names;

  std::string text(const std::string& id) const {
    std::vector<std::string> missing;
    for (std::uint64_t n = 0; n < shards && missing.size() <= kNumbersNamed; ++n)
      if (!numbers.contains(n)) missing.push_back(std::to_string(n));
    if (missing.size() > kNumbersNamed) missing.back() = "...";
    return fmt::format("set {} has {} shards, {} of them are here, without number {}", id, shards, numbers.size(),
                       fmt::join(missing, ", "));
  }
};

/// Checks the sets that the shards record. `listed`: names that have a manifest and agree with it, so that shards
/// missing from their sets were left out on purpose.
void check_marks(const std::vector<ShardInfo>& shards, const std::vector<ChosenShard>& chosen,
                 const std::set<Name>& listed) {
  std::map<std::string, Set> sets;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto& mark = shards[i].set;
    if (mark.id.empty()) continue;
    auto& set = sets[mark.id];
    if (set.shards == 0) set.shards = mark.shards;
    if (set.shards != mark.shards)
      fail(fmt::format("{} says that set {} has {} shards, {} says {}", shards[i].path, mark.id, mark.shards,
                       set.numbers.begin()->second->path, set.shards),
           kPackAgain);
    if (!set.numbers.emplace(mark.number, &shards[i]).second && ++set.copies == 1) set.twice = &shards[i];
    set.whole = set.whole || chosen[i].by_folder;
    if (const auto name = name_of(shards[i].path)) set.names.insert(*name);
  }
  std::map<Name, std::string> incomplete;  // name -> message about its incomplete set
  for (const auto& [id, set] : sets) {
    if (set.copies > 0)
      log::warn(fmt::format("{} holds the same images as {}{}: they count twice", set.twice->path,
                            set.numbers.at(set.twice->set.number)->path,
                            set.copies > 1 ? fmt::format(", and {} more files repeat others", set.copies - 1) : ""));
    if (set.numbers.size() == set.shards) continue;
    for (const auto& name : set.names) {
      const auto [at, first] = incomplete.emplace(name, set.text(id));
      if (first || listed.contains(name)) continue;
      fail(fmt::format("{} are parts of different packs: {}; {}", text_of(name), at->second, set.text(id)),
           "pack again with --replace");
    }
  }
  for (const auto& [id, set] : sets) {
    if (set.numbers.size() == set.shards) continue;
    const auto what = fmt::format("{} and others: {}", set.numbers.begin()->second->path, set.text(id));
    if (set.whole) fail(what, kPackAgain);
    log::warn(what + "; the others are left out");
  }
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts{""};
  for (std::size_t at = 0; at < text.size(); ++at)
    if (text.compare(at, 2, "\\,") == 0)
      parts.back() += text[++at];
    else if (text[at] == ',')
      parts.emplace_back();
    else
      parts.back() += text[at];
  for (auto& part : parts) {
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
  }
  std::erase(parts, "");
  return parts;
}

/// Adds the files that `name` names. Returns false if there is no such file or folder and the pattern matches nothing.
bool add(const std::string& name, std::vector<ChosenShard>& out) {
  std::error_code error;
  if (fs::is_directory(name, error)) {
    const auto paths = shards_in(name);
    if (paths.empty()) {
      want_finished(name);
      fail(fmt::format("{}: the folder holds no *.h5", name), "make shards with seer pack");
    }
    for (const auto& path : paths) out.push_back({path, true});
    return true;
  }
  if (fs::is_regular_file(name, error)) {  // whatever characters its name has
    out.push_back({name});
    return true;
  }
  if (name.find_first_of("*?[") == std::string::npos) return false;
  glob_t found{};
  const int status = ::glob(name.c_str(), GLOB_NOSORT, nullptr, &found);
  for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) out.push_back({found.gl_pathv[i]});
  globfree(&found);
  return status == 0;
}

}  // namespace

std::optional<Manifest> read_manifest(const std::string& folder, const std::string& name) {
  const auto path = manifest_path(folder, name);
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    if (errno == ENOENT) return std::nullopt;
    fail(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  try {
    const json tree = json::parse(in);
    if (tree.at("format") != kManifestFormat || tree.at("version") != 1)
      fail(fmt::format("{}: not a list of shards that this program reads", path),
           "use the version of seer that wrote it, or move it to another folder");
    Manifest manifest{tree.at("complete").get<bool>(), {}};
    for (const auto& file : tree.at("files"))
      manifest.files.push_back({file.at("name"), file.at("set"), file.at("images"), file.at("bytes")});
    return manifest;
  } catch (const json::exception& e) {
    fail(fmt::format("{}: cannot be parsed: {}", path, e.what()), "pack again with --replace");
  }
}

void write_manifest(const std::string& folder, const std::string& name, const Manifest& manifest) {
  nlohmann::ordered_json tree = {{"format", kManifestFormat}, {"version", 1}, {"complete", manifest.complete}};
  tree["files"] = json::array();
  for (const auto& f : manifest.files)
    tree["files"].push_back({{"name", f.name}, {"set", f.set}, {"images", f.images}, {"bytes", f.bytes}});
  replace_file(manifest_path(folder, name), tree.dump(1, ' ', false, json::error_handler_t::replace) + '\n');
  sync_to_disk(folder);
}

void replace_file(const std::string& path, const std::string& content) {
  const auto temporary = path + kTemporarySuffix;
  std::ofstream out(temporary, std::ios::binary);
  out << content;
  out.close();
  if (!out) fail(fmt::format("{}: cannot be written: {}", temporary, std::strerror(errno)));
  sync_to_disk(temporary);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail(fmt::format("{}: {}", path, std::strerror(errno)));
}

void want_finished(const std::string& folder) {
  for (const auto& name : names_with_manifest(folder))
    if (const auto manifest = read_manifest(folder, name)) want_complete({folder, name}, *manifest);
}

std::string shard_path(const std::string& folder, const std::string& name, std::size_t number) {
  return fmt::format("{}/{}-{:05}.h5", folder, name, number);
}

std::optional<std::pair<std::string, std::size_t>> parse_shard_name(const std::string& file) {
  static const std::regex pattern("([\\s\\S]+)-([0-9]{5,12})\\.h5");
  std::smatch parts;
  if (!std::regex_match(file, parts, pattern)) return std::nullopt;
  return std::pair{parts[1].str(), static_cast<std::size_t>(std::stoull(parts[2]))};
}

void check_sets(const std::vector<ShardInfo>& shards, const std::vector<ChosenShard>& chosen) {
  std::map<Name, std::map<std::string, const ShardInfo*>> names;
  std::set<std::string> whole, everywhere;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto& path = shards[i].path;
    if (chosen[i].by_folder) whole.insert(folder_of(path));
    if (const auto name = name_of(path)) names[*name][file_of(path)] = &shards[i];
    everywhere.insert(file_of(path));
  }
  for (const auto& folder : whole)  // include names of which no shard is left
    for (const auto& name : names_with_manifest(folder)) names[{folder, name}];
  std::map<std::string, std::vector<std::string>> splits;  // per folder that is read as a whole
  for (const auto& [name, here] : names)
    if (whole.contains(name.first) && !here.empty() && is_split_name(name.second))
      splits[name.first].push_back(name.second);
  for (const auto& [folder, of_folder] : splits) {
    if (of_folder.size() < 2) continue;
    log::warn(fmt::format("{} holds the splits {}, and all of them are read; to read one, give \"{}/{}-*.h5\"", folder,
                          fmt::join(of_folder, ", "), folder, of_folder.front()));
  }
  std::set<Name> listed;
  for (const auto& [name, here] : names) {
    const auto manifest = read_manifest(name.first, name.second);
    if (!manifest) continue;
    check_manifest(name, *manifest, here, everywhere, whole.contains(name.first));
    listed.insert(name);
  }
  check_marks(shards, chosen, listed);
}

std::vector<std::string> shards_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    if (entry.path().extension() == ".h5" && name[0] != '.') paths.push_back(entry.path().string());
  }
  if (error) fail(fmt::format("{}: {}", folder, error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<ChosenShard> find_shards(const std::string& text) {
  std::vector<ChosenShard> found;
  if (!add(text, found)) {
    const auto parts = split_list(text);
    if (parts.empty()) fail("the list of shards is empty", "set data.shards");
    const std::string remedy =
        fmt::format("make shards with seer pack, or correct the name{}",
                    parts.size() > 1 ? "; commas separate names: write \\, for a comma of a name" : "");
    for (const auto& part : parts) {
      if (add(part, found)) continue;
      const bool pattern = part.find_first_of("*?[") != std::string::npos;
      fail(pattern ? fmt::format("no file matches \"{}\"", part) : fmt::format("{}: no such file or folder", part),
           remedy);
    }
  }
  // If a file was named and its folder too, keep it once, with by_folder.
  std::ranges::sort(found, {}, [](const ChosenShard& c) { return std::pair(std::string_view(c.path), !c.by_folder); });
  const auto repeated = std::ranges::unique(found, {}, &ChosenShard::path);
  found.erase(repeated.begin(), repeated.end());
  return found;
}

}  // namespace seer::data
