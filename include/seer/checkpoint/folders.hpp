// SPDX-License-Identifier: Apache-2.0
// Checkpoint folders, and file operations that survive a power failure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

namespace seer::checkpoint {

std::filesystem::path checkpoints_folder(const std::string& run_dir);
/// "update-00001234"
std::string folder_name(std::int64_t update);
/// The inverse of folder_name; nothing for any other name.
std::optional<std::int64_t> folder_update(const std::string& name);
/// Paths that have the name of a checkpoint folder, newest first. Their contents are not checked, nor that they are
/// folders. Empty if there is no checkpoints folder. Error(file) if it exists but cannot be read, since it may hold a
/// week of work.
std::vector<std::filesystem::path> list_folders(const std::string& run_dir);

/// Throws Error(file) "call path: reason from errno", with a remedy if the disk is full.
[[noreturn]] void fail_with_errno(const std::string& call, const std::string& path,
                                  std::source_location where = std::source_location::current());
/// fsync(2) of a file or folder. Error(file).
void sync_path(const std::string& path);
/// Writes the text to a file and syncs it. Error(file).
void write_text(const std::string& path, const std::string& text);
/// rename(2) and fsync of the parent folder. Error(file).
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// Moves a finished temporary folder to its final path. Deletes an earlier folder of that name only afterwards.
void commit_folder(const std::filesystem::path& temporary, const std::filesystem::path& final_path);
/// Deletes a checkpoint folder. Renames it first, so that an interrupted deletion does not look like damage. Warns if
/// it fails.
void discard(const std::filesystem::path& folder);
/// Removes what interrupted saves and deletions left behind, and restores what an interrupted replacement moved aside.
void clear_leftovers(const std::filesystem::path& checkpoints);

}  // namespace seer::checkpoint
