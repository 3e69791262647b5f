// SPDX-License-Identifier: Apache-2.0
#include "shard_set.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/shard_writer.hpp"

#include "pack_names.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kManifestFormat = "seer-shards";
constexpr const char* kManifestEnd = ".manifest.json";
constexpr std::size_t kNumbersNamed = 8;

struct Place {
  std::string folder, file;
};
Place place_of(const std::string& path) {
  const fs::path p(path);
  return {p.has_parent_path() ? p.parent_path().string() : ".", p.filename().string()};
}

/// The shards of one name in a folder, as one pack writes them.
using Name = std::pair<std::string, std::string>;  // folder, name
std::optional<Name> name_of(const std::string& path) {
  const auto place = place_of(path);
  const auto parsed = parse_shard_name(place.file);
  return parsed ? std::optional<Name>({place.folder, parsed->first}) : std::nullopt;
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

void want_complete(const Name& name, const Manifest& manifest) {
  if (!manifest.complete) {
    throw Error(ExitCode::file, fmt::format("{}: the pack that wrote these files did not finish", text_of(name)),
                "run it again, with --replace or with --append as then");
  }
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
    if (at == listed.end()) {
      throw Error(
          ExitCode::file,
          fmt::format("{} is not among the {} files of {}: it is of another pack", info->path, listed.size(), path),
          "remove it, or move it to another folder");
    }
    const auto& file_listed = *at->second;
    if (file_listed.set != info->set.id || file_listed.images != info->images ||
        file_listed.bytes != info->file_bytes) {
      throw Error(ExitCode::file,
                  fmt::format("{} is not the file that {} lists: it is of another pack", info->path, path), kPackAgain);
    }
  }
  if (!whole) return;
  const auto is_missing = [&](const auto& l) { return !everywhere.contains(l.first); };
  const auto missing = std::count_if(listed.begin(), listed.end(), is_missing);
  if (missing == 0) return;
  throw Error(ExitCode::file,
              fmt::format("{}: {} of the {} files that {} lists are missing, {} first", text_of(name), missing,
                          listed.size(), path, std::find_if(listed.begin(), listed.end(), is_missing)->first),
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
    std::vector<std::uint64_t> missing;
    for (std::uint64_t n = 0, seen = 0; n < shards && missing.size() <= kNumbersNamed; ++n) {
      if (seen < numbers.size() && numbers.contains(n)) {
        ++seen;
      } else {
        missing.push_back(n);
      }
    }
    const bool more = missing.size() > kNumbersNamed;
    if (more) missing.pop_back();
    return fmt::format("set {} has {} shards, {} of them are here, without number {}{}", id, shards, numbers.size(),
                       fmt::join(missing, ", "), more ? ", ..." : "");
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
    if (set.shards != mark.shards) {
      throw Error(ExitCode::file,
                  fmt::format("{} says that set {} has {} shards, {} says {}", shards[i].path, mark.id, mark.shards,
                              set.numbers.begin()->second->path, set.shards),
                  kPackAgain);
    }
    if (!set.numbers.emplace(mark.number, &shards[i]).second && ++set.copies == 1) set.twice = &shards[i];
    set.whole = set.whole || chosen[i].by_folder;
    if (const auto name = name_of(shards[i].path)) set.names.insert(*name);
  }
  std::map<Name, std::string> incomplete;  // name -> message about its incomplete set
  for (const auto& [id, set] : sets) {
    if (set.copies > 0) {
      log::warn(fmt::format("{} holds the images of {} again{}: they count twice", set.twice->path,
                            set.numbers.at(set.twice->set.number)->path,
                            set.copies > 1 ? fmt::format(" (and {} more files those of others)", set.copies - 1) : ""));
    }
    if (set.numbers.size() == set.shards) continue;
    for (const auto& name : set.names) {
      const auto [at, first] = incomplete.emplace(name, set.text(id));
      if (first || listed.contains(name)) continue;
      throw Error(ExitCode::file,
                  fmt::format("{} are parts of different packs: {}; {}", text_of(name), at->second, set.text(id)),
                  "pack again with --replace");
    }
  }
  for (const auto& [id, set] : sets) {
    if (set.numbers.size() == set.shards) continue;
    const auto what = fmt::format("{} and others: {}", set.numbers.begin()->second->path, set.text(id));
    if (set.whole) throw Error(ExitCode::file, what, kPackAgain);
    log::warn(what + "; the others are left out");
  }
}

}  // namespace

std::string manifest_path(const std::string& folder, const std::string& name) {
  return folder + "/" + name + kManifestEnd;
}

std::optional<Manifest> read_manifest(const std::string& folder, const std::string& name) {
  const auto path = manifest_path(folder, name);
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    if (errno == ENOENT) return std::nullopt;
    throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  try {
    const json tree = json::parse(in);
    if (tree.at("format") != kManifestFormat || tree.at("version") != 1) {
      throw Error(ExitCode::file, fmt::format("{}: not a list of shards that this program reads", path),
                  "use the seer that wrote it, or move it away");
    }
    Manifest manifest{tree.at("complete").get<bool>(), {}};
    for (const auto& file : tree.at("files")) {
      manifest.files.push_back({file.at("name"), file.at("set"), file.at("images"), file.at("bytes")});
    }
    return manifest;
  } catch (const json::exception& e) {
    throw Error(ExitCode::file, fmt::format("{}: not understood: {}", path, e.what()), "pack again with --replace");
  }
}

void write_manifest(const std::string& folder, const std::string& name, const Manifest& manifest) {
  nlohmann::ordered_json tree = {{"format", kManifestFormat}, {"version", 1}, {"complete", manifest.complete}};
  tree["files"] = json::array();
  for (const auto& f : manifest.files) {
    tree["files"].push_back({{"name", f.name}, {"set", f.set}, {"images", f.images}, {"bytes", f.bytes}});
  }
  const auto path = manifest_path(folder, name), temporary = path + kTemporarySuffix;
  std::ofstream out(temporary, std::ios::binary);
  out << tree.dump(1, ' ', false, json::error_handler_t::replace) << '\n';
  out.close();
  if (!out) throw Error(ExitCode::file, fmt::format("{}: cannot be written: {}", temporary, std::strerror(errno)));
  sync_to_disk(temporary);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  sync_to_disk(folder);
}

void want_finished(const std::string& folder) {
  for (const auto& name : names_with_manifest(folder)) {
    if (const auto manifest = read_manifest(folder, name)) want_complete({folder, name}, *manifest);
  }
}

std::string shard_path(const std::string& folder, const std::string& name, std::size_t number) {
  return fmt::format("{}/{}-{:05}.h5", folder, name, number);
}

std::optional<std::pair<std::string, std::size_t>> parse_shard_name(const std::string& file) {
  if (!file.ends_with(".h5")) return std::nullopt;
  const auto stem = file.substr(0, file.size() - 3);
  const auto dash = stem.rfind('-');
  if (dash == std::string::npos || dash == 0) return std::nullopt;
  const auto digits = stem.substr(dash + 1);
  if (digits.size() < 5 || digits.size() > 12 ||
      !std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
    return std::nullopt;
  }
  return std::pair{stem.substr(0, dash), static_cast<std::size_t>(std::stoull(digits))};
}

void check_sets(const std::vector<ShardInfo>& shards, const std::vector<ChosenShard>& chosen) {
  std::map<Name, std::map<std::string, const ShardInfo*>> names;
  std::set<std::string> whole, everywhere;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    if (chosen[i].by_folder) whole.insert(place_of(shards[i].path).folder);
    if (const auto name = name_of(shards[i].path)) names[*name][place_of(shards[i].path).file] = &shards[i];
    everywhere.insert(place_of(shards[i].path).file);
  }
  for (const auto& folder : whole) {  // include names of which no shard is left
    for (const auto& name : names_with_manifest(folder)) names[{folder, name}];
  }
  std::map<std::string, std::vector<std::string>> splits;  // per folder that is read as a whole
  for (const auto& [name, here] : names) {
    if (whole.contains(name.first) && !here.empty() && is_split_name(name.second)) {
      splits[name.first].push_back(name.second);
    }
  }
  for (const auto& [folder, of_folder] : splits) {
    if (of_folder.size() < 2) continue;
    log::warn(fmt::format("{} holds the splits {}, and all of them are read; name one: \"{}/{}-*.h5\"", folder,
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

}  // namespace seer::data
