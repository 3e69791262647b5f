// SPDX-License-Identifier: Apache-2.0
#include "pack_output.hpp"

#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The number in "<name>-00012.h5" (plus `suffix`), or nothing.
std::optional<std::size_t> shard_number(const std::string& file, const std::string& name, const std::string& suffix) {
  const std::string start = name + "-", end = ".h5" + suffix;
  if (!file.starts_with(start) || !file.ends_with(end)) return std::nullopt;
  const auto digits = file.substr(start.size(), file.size() - start.size() - end.size());
  if (digits.size() < 5 || digits.size() > 12 ||
      !std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
    return std::nullopt;
  }
  return std::stoull(digits);
}

std::size_t remove_matching(const std::string& folder, const std::string& name, const std::string& suffix,
                            std::size_t from) {
  std::size_t removed = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto number = shard_number(entry.path().filename().string(), name, suffix);
    if (number && *number >= from && fs::remove(entry.path(), error)) ++removed;
  }
  return removed;
}

}  // namespace

std::string shard_path(const std::string& folder, const std::string& name, std::size_t index) {
  return fmt::format("{}/{}-{:05}.h5", folder, name, index);
}

void prepare_folder(const std::string& folder, const std::string& name) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ExitCode::file, fmt::format("{}: cannot be made: {}", folder, error.message()));
  const std::string probe = fmt::format("{}/.seer-write-test", folder);
  if (std::FILE* file = std::fopen(probe.c_str(), "w")) {
    std::fclose(file);
    std::remove(probe.c_str());
  } else {
    throw Error(ExitCode::file, fmt::format("{}: not writable: {}", folder, std::strerror(errno)));
  }
  const auto removed = remove_matching(folder, name, kTemporarySuffix, 0);
  if (removed > 0) log::info(fmt::format("removed {} unfinished shards of an interrupted call", removed));
}

void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects) {
  const std::string path = folder + "/rejects.jsonl", temporary = path + kTemporarySuffix;
  std::ofstream out(temporary, std::ios::binary);
  std::ifstream before(path);
  for (std::string line; std::getline(before, line);) {
    const auto old = json::parse(line, nullptr, false);
    if (old.is_object() && old.contains("split") && old["split"] != name) out << line << '\n';
  }
  for (const auto& r : rejects) {
    const json object = {{"split", name}, {"path", r.path}, {"reason", r.reason}, {"bytes", r.bytes}};
    // Paths are bytes; those that are no UTF-8 get the replacement character.
    out << object.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  out.close();
  if (!out) throw Error(ExitCode::file, fmt::format("{}: cannot be written: {}", temporary, std::strerror(errno)));
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
}

void want_room(const std::string& folder, std::uint64_t bytes) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;  // the writes themselves will tell
  const auto free_bytes = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (free_bytes < bytes) {
    throw Error(ExitCode::file,
                fmt::format("{}: no space left: the images need {} bytes, {} are free", folder, bytes, free_bytes),
                "make room, or write to another file system");
  }
}

void remove_shards(const std::string& folder, const std::string& name, std::size_t from) {
  const auto removed = remove_matching(folder, name, "", from);
  if (removed > 0) log::info(fmt::format("removed {} shards that an earlier call had made beyond these", removed));
}

}  // namespace seer::data
