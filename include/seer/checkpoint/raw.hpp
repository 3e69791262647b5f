// SPDX-License-Identifier: Apache-2.0
// Plain system calls on files, with errors that name call, file and cause, and file operations that survive a power
// failure. The tensors of state.h5 are checked, loaded and written this way at the manifest's offsets: so HDF5 never
// sees a damaged file, and no HDF5 or MPI-IO call is left half done if a rank's write fails.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <source_location>
#include <string>

namespace seer::checkpoint {

/// Throws Error(file) "cannot call path: reason from errno", with a remedy if the disk is full.
[[noreturn]] void fail_with_errno(const std::string& call, const std::string& path,
                                  std::source_location where = std::source_location::current());

/// Owns a file descriptor. Every failure is Error(file).
class RawFile {
 public:
  enum class Access { read, write, create };
  /// read, write: opens an existing file (read: or a folder, to sync it). create: makes or empties the file.
  explicit RawFile(const std::string& path, Access access = Access::read);
  ~RawFile();
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  /// Reads exactly `bytes` bytes at `offset`.
  void read(std::uint64_t offset, void* to, std::uint64_t bytes) const;
  /// Writes all `bytes` bytes at `offset`.
  void write(std::uint64_t offset, const void* from, std::uint64_t bytes) const;
  /// Syncs what this node has written to the disk.
  void sync() const;
  int descriptor() const { return fd_; }

 private:
  std::string path_;
  int fd_;
};

/// What is wrong, if `check` throws; else "".
std::string problem_of(const auto& check) {
  try {
    check();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

/// Writes the text to a file and syncs it. Error(file).
void write_text(const std::string& path, const std::string& text);
/// rename(2), and syncs the parent folder. Error(file).
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// Makes or replaces a file as a whole: `write` makes a temporary file beside it, which is then synced and renamed. If
/// a step fails, throws its error, and leaves no temporary file.
void replace_file(const std::string& path, const std::function<void(const std::string& temporary)>& write);
/// 16 random hexadecimal digits.
std::string random_name();

}  // namespace seer::checkpoint
