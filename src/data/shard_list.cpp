// SPDX-License-Identifier: Apache-2.0
#include "shard_list.hpp"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <filesystem>

#include "seer/base/error.hpp"
#include "shard_set.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts{""};
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text.compare(at, 2, "\\,") == 0) {
      parts.back() += text[++at];
    } else if (text[at] == ',') {
      parts.emplace_back();
    } else {
      parts.back() += text[at];
    }
  }
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
      throw Error(ExitCode::file, fmt::format("{}: the folder holds no *.h5", name), "make shards with seer pack");
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

std::vector<std::string> shards_in(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    if (entry.path().extension() == ".h5" && name[0] != '.') paths.push_back(entry.path().string());
  }
  if (error) throw Error(ExitCode::file, fmt::format("{}: {}", folder, error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<ChosenShard> find_shards(const std::string& text) {
  std::vector<ChosenShard> found;
  if (!add(text, found)) {
    const auto parts = split_list(text);
    if (parts.empty()) throw Error(ExitCode::file, "the list of shards is empty", "set data.shards");
    const std::string remedy =
        fmt::format("make shards with seer pack, or correct the name{}",
                    parts.size() > 1 ? "; commas separate names: write \\, for a comma of a name" : "");
    for (const auto& part : parts) {
      if (add(part, found)) continue;
      const bool pattern = part.find_first_of("*?[") != std::string::npos;
      throw Error(
          ExitCode::file,
          pattern ? fmt::format("no file matches \"{}\"", part) : fmt::format("{}: no such file or folder", part),
          remedy);
    }
  }
  // If a file was named and its folder too, keep it once, with by_folder.
  std::sort(found.begin(), found.end(), [](const ChosenShard& a, const ChosenShard& b) {
    return a.path != b.path ? a.path < b.path : a.by_folder > b.by_folder;
  });
  found.erase(std::unique(found.begin(), found.end(),
                          [](const ChosenShard& a, const ChosenShard& b) { return a.path == b.path; }),
              found.end());
  return found;
}

}  // namespace seer::data
