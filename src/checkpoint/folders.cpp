// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/folders.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "update-";
constexpr std::string_view kTemporary = ".tmp-", kReplaced = ".old-", kDeleted = ".del-";

/// True also for a broken link.
bool is_there(const fs::path& path) {
  std::error_code ec;
  return fs::exists(fs::symlink_status(path, ec));
}

/// True for example if `path` is a mount.
bool on_another_device(const fs::path& path, const fs::path& parent) {
  struct stat own = {}, outer = {};
  return stat(path.c_str(), &own) == 0 && stat(parent.c_str(), &outer) == 0 && own.st_dev != outer.st_dev;
}

}  // namespace

void fail_with_errno(const std::string& call, const std::string& path, std::source_location where) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(ExitCode::file, fmt::format("cannot {} {}: {}", call, path, std::strerror(error)),
              full ? "free space, lower checkpoint.keep_last, or move log.run_dir to a larger file system" : "", where);
}

fs::path checkpoints_folder(const std::string& run_dir) {
  return fs::path(run_dir) / "checkpoints";
}

std::string folder_name(std::int64_t update) {
  return fmt::format("{}{:08d}", kPrefix, update);
}

std::optional<std::int64_t> folder_update(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t update = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, update);
  if (error != std::errc() || stop != end || update < 0 || folder_name(update) != name) return std::nullopt;
  return update;
}

std::vector<fs::path> list_folders(const std::string& run_dir) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  const auto parent = checkpoints_folder(run_dir);
  std::error_code ec;
  for (fs::directory_iterator at(parent, ec), end; !ec && at != end; at.increment(ec)) {
    if (const auto update = folder_update(at->path().filename())) found.emplace_back(*update, at->path());
  }
  if (ec && ec != std::errc::no_such_file_or_directory) {
    throw Error(ExitCode::file, fmt::format("cannot look for checkpoints in {}: {}", parent.string(), ec.message()),
                "is the file system of log.run_dir there, and may this user read it?");
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<fs::path> out;
  for (auto& [update, path] : found) out.push_back(std::move(path));
  return out;
}

void sync_path(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_with_errno("open", path);
  // Some network file systems cannot sync folders and return EINVAL; their renames are durable without it.
  const bool failed = fsync(fd) != 0 && errno != EINVAL;
  const int error = errno;
  close(fd);
  errno = error;
  if (failed) fail_with_errno("fsync", path);
}

void write_text(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) fail_with_errno("create", path);
  std::size_t at = 0;
  while (at < text.size()) {
    const auto n = write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    at += static_cast<std::size_t>(n);
  }
  const bool failed = at < text.size() || fsync(fd) != 0;
  const int error = errno;
  close(fd);
  errno = error;
  if (failed) fail_with_errno("write", path);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_with_errno("rename to", to.string());
  sync_path(to.has_parent_path() ? to.parent_path().string() : ".");
}

void commit_folder(const fs::path& temporary, const fs::path& final_path) {
  sync_path(temporary);
  const auto parent = final_path.parent_path();
  const auto aside = parent / (std::string(kReplaced) + final_path.filename().string());
  std::error_code ec;
  // rename(2) does not replace a folder that is not empty. So the earlier folder is moved aside first; if the process
  // dies before the second rename, clear_leftovers() brings it back.
  const bool replaces = fs::exists(final_path, ec);
  if (replaces) {
    fs::remove_all(aside, ec);
    rename_durably(final_path, aside);
  }
  try {
    rename_durably(temporary, final_path);
  } catch (const Error&) {
    if (replaces && !fs::exists(final_path, ec)) fs::rename(aside, final_path, ec);
    throw;
  }
  if (replaces) fs::remove_all(aside, ec);
}

void clear_leftovers(const fs::path& checkpoints) {
  std::error_code ec;
  std::vector<fs::path> entries;
  for (fs::directory_iterator at(checkpoints, ec), end; !ec && at != end; at.increment(ec))
    entries.push_back(at->path());
  for (const auto& path : entries) {
    const std::string name = path.filename();
    if (name.starts_with(kTemporary) || name.starts_with(kDeleted)) {
      fs::remove_all(path, ec);
    } else if (name.starts_with(kReplaced)) {
      const auto home = checkpoints / name.substr(kReplaced.size());
      if (fs::exists(home, ec)) {
        fs::remove_all(path, ec);
      } else {
        log::warn(fmt::format("{} was being replaced when a run ended; the earlier one is used", home.string()));
        fs::rename(path, home, ec);
      }
    }
  }
}

std::string set_aside_newer(const std::string& run_dir, std::int64_t update, const std::string& record) {
  const auto home = checkpoints_folder(run_dir);
  clear_leftovers(home);  // else a folder whose replacement was interrupted would come back later
  auto folders = list_folders(run_dir);
  std::erase_if(folders, [&](const fs::path& f) { return folder_update(f.filename()).value_or(0) <= update; });
  std::reverse(folders.begin(), folders.end());  // oldest first: if killed, the newest of the old run is still there
  std::error_code ec;
  const auto recorded = fs::path(run_dir) / record;
  const bool records = !record.empty() && fs::is_regular_file(recorded, ec);
  if (folders.empty() && !records) return "";

  // Folders are moved by rename, so if checkpoints/ leads to another file system they must stay on it.
  const bool linked = fs::is_symlink(home, ec) || on_another_device(home, run_dir);
  int n = 1;
  std::string name;
  do name = fmt::format("checkpoints.old-{}", n++);
  while (is_there(fs::path(run_dir) / name) || is_there(home / name));
  const auto shown = fs::path(run_dir) / name, aside = linked ? home / name : shown;
  if (!fs::create_directory(aside, ec)) fail_with_errno("mkdir", aside.string());
  if (linked) fs::create_directory_symlink(fs::path("checkpoints") / name, shown, ec);
  try {
    if (records && !fs::copy_file(recorded, aside / record, ec)) {
      throw Error(ExitCode::file,
                  fmt::format("cannot copy {} to {}: {}", recorded.string(), aside.string(), ec.message()));
    }
    for (const auto& folder : folders) rename_durably(folder, aside / folder.filename());
  } catch (const Error&) {
    for (const auto& folder : folders) fs::rename(aside / folder.filename(), folder, ec);
    if (records) fs::remove(aside / record, ec);
    if (linked) fs::remove(shown, ec);
    fs::remove(aside, ec);
    throw;
  }
  if (records) fs::remove(recorded, ec);
  return aside.string();
}

void discard(const fs::path& folder) {
  const auto doomed = folder.parent_path() / (std::string(kDeleted) + folder.filename().string());
  std::error_code ec;
  fs::rename(folder, doomed, ec);
  if (!ec) fs::remove_all(doomed, ec);
  if (ec) log::warn(fmt::format("checkpoint {} cannot be deleted: {}", folder.string(), ec.message()));
}

void retain(const std::string& run_dir, std::int64_t keep_last, std::int64_t keep_every) {
  std::int64_t kept = 0;
  std::vector<fs::path> folders;
  try {
    folders = list_folders(run_dir);
  } catch (const Error& e) {
    log::warn(fmt::format("no old checkpoint is deleted: {}; {}", e.what(), e.remedy()));
  }
  for (const auto& folder : folders) {
    std::int64_t update = 0;
    try {
      update = read_manifest(folder).update;
    } catch (const Error&) {
      continue;  // an incomplete checkpoint is kept as evidence and not counted
    }
    const bool milestone = keep_every > 0 && update % keep_every == 0;
    if (kept++ < std::max<std::int64_t>(keep_last, 1) || milestone) continue;
    discard(folder);
  }
}

}  // namespace seer::checkpoint
