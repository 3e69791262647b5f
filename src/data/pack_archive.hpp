// SPDX-License-Identifier: Apache-2.0
// Reads one tar archive once, from its start: a file, or an entry of another archive. Private to pack*.cpp.
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

/// Reading the archive cannot continue. The text is libarchive's reason; it may differ between ranks that read an entry
/// and ranks that skip it.
class BrokenArchive : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class ArchiveReader {
 public:
  struct Entry {
    std::string name;         ///< without a leading ./ or /
    std::uint64_t bytes = 0;  ///< declared
    std::string refusal;      ///< if not empty: the entry is not a regular file
  };

  /// BrokenArchive if the file cannot be opened or is not a tar archive.
  explicit ArchiveReader(const std::string& path);
  /// Reads the entry that `outer` returned last, decompressing as it goes. `outer` must stay at this entry and at the
  /// same address while this reader is in use.
  explicit ArchiveReader(ArchiveReader& outer);
  ~ArchiveReader();

  /// Returns the next entry that is not a folder; false at the end. BrokenArchive.
  bool next(Entry& out);
  /// Reads the next bytes of that entry, with zeros for holes of sparse files. Returns fewer than requested only at the
  /// end of the entry. BrokenArchive.
  std::size_t read(std::span<std::uint8_t> to);
  std::uint64_t entries() const { return entries_; }
  /// Fraction of the file already read, 0 to 1.
  double fraction() const;

 private:
  struct Input;
  void open();
  void check(int status) const;

  std::unique_ptr<Input> input_;
  std::unique_ptr<archive, void (*)(archive*)> archive_;
  archive_entry* entry_ = nullptr;
  std::uint64_t entries_ = 0;
  // The entry's size, how far it was read, and the last block from libarchive with its position.
  std::uint64_t bytes_ = 0, at_ = 0, block_at_ = 0, block_bytes_ = 0;
  const std::uint8_t* block_ = nullptr;
};

}  // namespace seer::data
