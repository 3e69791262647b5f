// SPDX-License-Identifier: Apache-2.0
#include "pack_left_out.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "pack_names.hpp"
#include "seer/base/utf8.hpp"

namespace seer::data {
namespace {

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 10;
  if (names.empty()) return "no folder";
  std::string text = names.size() == 1 ? "the folder" : "the folders";
  for (std::size_t i = 0; i < std::min(kShown, names.size()); ++i) text += (i > 0 ? ", " : " ") + utf8_name(names[i]);
  return names.size() > kShown ? fmt::format("{} and {} more", text, names.size() - kShown) : text;
}

// A split that finds nothing, or leaves nothing out.
std::string warning_of_split(const std::string& path, const std::string& split, const Tally& tally) {
  if (tally.taken > 0 && tally.outside_split == 0) {
    return fmt::format("--split {} takes all {} files of {}: nothing there is of another split", split, tally.taken,
                       path);
  }
  if (tally.taken == 0) {
    return fmt::format("no folder {} directly inside {}, which holds {}", split, path,
                       listed({tally.folders.begin(), tally.folders.end()}));
  }
  return "";
}

std::string warning_of_mixture(const SourceList::Source& source, const Tally& tally) {
  const bool one_top = source.kind == SourceList::Kind::archive && tally.folders.size() == 1 && !tally.files_inside;
  const auto& folders = one_top ? tally.second_folders : tally.folders;
  std::vector<std::string> splits;
  for (const auto& folder : folders) {
    const auto stem = archive_stem(folder);
    if (is_split_name(stem.empty() ? folder : stem)) splits.push_back(folder);
  }
  if (splits.size() < 2) return "";
  return fmt::format("{} of {} are packed together; --split packs each apart", listed(splits), utf8_name(source.given));
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
    folders.insert(folders.end(), tally.folders.begin(), tally.folders.end());
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
    out.remedy = "name one of these, give the folder above the splits as source, or leave out --split";
  } else if (!out.counts.empty()) {
    out.nothing += " but hidden ones";
    out.remedy = "--hidden takes them";
  }
  return out;
}

}  // namespace seer::data
