// SPDX-License-Identifier: Apache-2.0
// One tar archive, read once from its start: a file, or an entry of another archive. Private to pack*.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

struct archive;
struct archive_entry;

namespace seer::data {

/// The archive cannot be read on; the text is libarchive's reason, which may differ between ranks that read an entry
/// and ranks that skip it.
class BrokenArchive : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class ArchiveReader {
 public:
  struct Entry {
    std::string name;         ///< without a leading ./ or /
    std::uint64_t bytes = 0;  ///< declared
    std::string refusal;      ///< not empty: no regular file
  };

  /// BrokenArchive: it cannot be opened, or is no tar.
  explicit ArchiveReader(const std::string& path);
  /// The entry that `outer` returned last, decompressed as it is read. `outer` stays where it is, and must not be
  /// asked for its next entry while this one is in use.
  explicit ArchiveReader(ArchiveReader& outer);
  ~ArchiveReader();

  /// The next entry that is no folder; false at the end. BrokenArchive.
  bool next(Entry& out);
  /// The next bytes of that entry, holes of sparse files as zeros; fewer than asked for at its end. BrokenArchive.
  std::size_t read(std::span<std::uint8_t> to);
  std::uint64_t entries() const { return entries_; }
  /// How much of the file is behind, 0 to 1.
  double fraction() const;

 private:
  struct Input;
  void open();
  void check(int status) const;

  std::unique_ptr<Input> input_;
  std::unique_ptr<archive, void (*)(archive*)> archive_;
  archive_entry* entry_ = nullptr;
  std::uint64_t entries_ = 0;
  // Of the entry: its size, how far it was read, and the block that libarchive gave last with its place.
  std::uint64_t bytes_ = 0, at_ = 0, block_at_ = 0, block_bytes_ = 0;
  const std::uint8_t* block_ = nullptr;
};

}  // namespace seer::data
