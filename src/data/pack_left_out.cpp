// SPDX-License-Identifier: Apache-2.0
#include "pack_left_out.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "pack_names.hpp"
#include "seer/base/utf8.hpp"

namespace seer::data {
namespace {

using Folders = std::map<std::string, std::set<std::string>>;

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 10;
  if (names.empty()) return "no folder";
  std::string text = names.size() == 1 ? "the folder" : "the folders";
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) text += (i > 0 ? ", " : " ") + utf8_name(names[i]);
  return names.size() > kShown ? fmt::format("{} and {} more", text, names.size() - kShown) : text;
}

std::vector<std::string> names_of(const Folders& folders) {
  std::vector<std::string> names;
  for (const auto& [name, inside] : folders) names.push_back(name);
  return names;
}

template <class Names>
std::vector<std::string> splits_among(const Names& names) {
  std::vector<std::string> splits;
  for (const auto& name : names) {
    const auto stem = archive_stem(name);
    if (is_split_name(stem.empty() ? std::string_view(name) : stem)) splits.push_back(name);
  }
  return splits;
}

// A warning that folders which look like several splits are packed together; "" for fewer than two.
std::string mixture(const std::vector<std::string>& splits, const std::string& where, const char* remedy) {
  if (splits.size() < 2) return "";
  return fmt::format("{} of {} are packed together; {}", listed(splits), utf8_name(where), remedy);
}

// A warning if the split matches nothing, leaves nothing out, or contains splits itself; else "".
std::string warning_of_split(const std::string& path, const std::string& split, const Tally& tally) {
  if (const auto own = tally.folders.find(split); own != tally.folders.end()) {
    const auto warning = mixture(splits_among(own->second), path + "/" + split, "give that folder as the source");
    if (!warning.empty()) return warning;
  }
  if (tally.taken > 0 && tally.outside_split == 0) {
    return fmt::format("--split {} takes all {} files of {}: nothing there is of another split", split, tally.taken,
                       path);
  }
  if (tally.taken == 0) {
    return fmt::format("no folder {} directly inside {}, which holds {}", split, path, listed(names_of(tally.folders)));
  }
  return "";
}

std::string warning_of_mixture(const SourceList::Source& source, const Tally& tally) {
  constexpr const char* kRemedy = "--split packs each apart";
  const bool one_top = tally.folders.size() == 1;
  if (one_top && source.kind == SourceList::Kind::archive && !tally.files_inside) {
    return mixture(splits_among(tally.folders.begin()->second), source.given, kRemedy);
  }
  if (one_top) {
    const auto& [top, inside] = *tally.folders.begin();
    const auto warning = mixture(splits_among(inside), source.given + "/" + top,
                                 "give that folder as the source, and --split packs each apart");
    if (!warning.empty()) return warning;
  }
  return mixture(splits_among(names_of(tally.folders)), source.given, kRemedy);
}

// Folders one level down that hold the split: most likely the user meant these as sources.
std::vector<std::string> sources_meant(const SourceList& sources, const std::string& split,
                                       const std::vector<Tally>& tallies) {
  std::vector<std::string> meant;
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    if (sources.sources[i].kind != SourceList::Kind::folder) continue;
    for (const auto& [top, inside] : tallies[i].folders) {
      if (inside.contains(split)) meant.push_back(sources.sources[i].given + "/" + top);
    }
  }
  return meant;
}

}  // namespace

LeftOut judge(const SourceList& sources, const SourceRules& rules, const std::vector<Tally>& tallies) {
  LeftOut out;
  std::vector<std::string> folders;
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const auto& tally = tallies[i];
    const auto path = utf8_name(sources.sources[i].given);
    const auto say = [&](const std::string& kind, std::uint64_t n, const char* detail) {
      out.counts[kind] += n;
      out.lines.push_back({path, fmt::format("{}: {} {}", kind, n, detail), 0});
    };
    for (const auto& [kind, n] : tally.hidden) {
      say("hidden: " + utf8_name(kind), n, "files or folders of such a name; --hidden takes them");
    }
    if (tally.outside_split > 0) say("not in the split", tally.outside_split, "files");
    auto warning = rules.split.empty() ? warning_of_mixture(sources.sources[i], tally)
                                       : warning_of_split(path, rules.split, tally);
    if (!warning.empty()) out.warnings.push_back(std::move(warning));
    if (tally.archives > 0 && tally.loose_images > 0) {
      out.warnings.push_back(fmt::format(
          "{} holds {} archives and, beside them, {} images: all are packed, and images that are in both are "
          "packed twice unless --reject-duplicates is given",
          path, tally.archives, tally.loose_images));
    }
    for (const auto& name : names_of(tally.folders)) folders.push_back(name);
    out.archives += tally.archives;
    out.samples |= tally.samples;
  }
  if (out.samples) {
    out.warnings.emplace_back(
        "archives hold texts beside their images (17.cls, 17.jpg), as webdataset's do: the texts are not read, and the "
        "archives' names make no classes");
  }
  std::sort(folders.begin(), folders.end());
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  out.nothing = "the sources hold no files";
  out.remedy = "correct the sources";
  if (!rules.split.empty()) {
    out.nothing = fmt::format("no folder {} directly inside the sources, which hold {}", rules.split, listed(folders));
    const auto meant = sources_meant(sources, rules.split, tallies);
    out.remedy = meant.empty()
                     ? "name one of these, give the folder above the splits as source, or leave out --split"
                     : fmt::format("{} {} such a folder: give {} as source", listed(meant),
                                   meant.size() == 1 ? "holds" : "hold", meant.size() == 1 ? "it" : "one of them");
  } else if (!out.counts.empty()) {
    out.nothing += " but hidden ones";
    out.remedy = "--hidden takes them";
  }
  return out;
}

}  // namespace seer::data
