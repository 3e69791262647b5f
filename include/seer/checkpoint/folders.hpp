// SPDX-License-Identifier: Apache-2.0
// Folders of checkpoints, and file operations that survive a power cut.
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
/// The reverse; nothing for any other name.
std::optional<std::int64_t> folder_update(const std::string& name);
/// Checkpoint folders by name, newest first, whatever is in them, be it that they are no folders. Empty where there is
/// no checkpoints folder at all; one that cannot be read is Error(file): it may hold the work of a week.
std::vector<std::filesystem::path> list_folders(const std::string& run_dir);

/// Error(file) "call path: reason of errno", with the remedy for a full disk.
[[noreturn]] void fail_with_errno(const std::string& call, const std::string& path,
                                  std::source_location where = std::source_location::current());
/// fsync(2) of a file or folder. Error(file).
void sync_path(const std::string& path);
/// Whole text, synced. Error(file).
void write_text(const std::string& path, const std::string& text);
/// rename(2) and fsync of the parent folder. Error(file).
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// Moves a finished temporary folder to its place; an earlier folder of that name goes only once the new one is there.
void commit_folder(const std::filesystem::path& temporary, const std::filesystem::path& final_path);
/// Deletes a checkpoint's folder, renamed first, so that an interrupted deletion does not look like damage. What cannot
/// be deleted is a warning.
void discard(const std::filesystem::path& folder);
/// Removes what interrupted saves and deletions left, and puts back what an interrupted replacement moved aside.
void clear_leftovers(const std::filesystem::path& checkpoints);

}  // namespace seer::checkpoint
