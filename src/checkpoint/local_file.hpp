// SPDX-License-Identifier: Apache-2.0
// One rank's part of a local set: rank-<n>.bin holds the bytes and rank-<n>.json describes them. The latter is written
// last; its presence means that the former is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"

namespace seer::checkpoint {

/// Parts are written, sent and checked in pieces of this many bytes.
constexpr std::size_t kLocalPieceBytes = std::size_t{8} << 20;

struct LocalSlab {
  std::string group, name;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0, end = 0;
  std::uint64_t offset_bytes = 0;  ///< where element `begin` lies in the file
};

struct LocalManifest {
  std::int64_t update = 0, rank = 0, ranks = 0;
  std::string save{};                              ///< the same for all parts of a set
  std::uint64_t bytes = 0;                         ///< size of the file
  std::uint64_t state_bytes = 0, queue_bytes = 0;  ///< sections at the file's start; only in rank 0's part
  std::vector<LocalSlab> slabs{};
  std::vector<std::uint64_t> pieces{};  ///< XXH3 of every piece of the file
};

std::string to_json(const LocalManifest& manifest);
/// Error(file); `path` appears in the message.
LocalManifest parse_local_manifest(const std::string& text, const std::string& path);
/// Path of a rank's part, without extension.
std::string local_part(const std::string& folder, std::int64_t rank);
/// Reads the manifest of `part` and compares it with the size of the file. Error(file).
LocalManifest read_local_manifest(const std::string& part);
/// Reads every byte. Returns "" or the first problem.
std::string verify_local(const std::string& part);

/// The contents of a rank's file, gathered piece by piece from the arguments' memory.
class LocalContents {
 public:
  /// Keeps pointers into all arguments.
  LocalContents(const std::vector<Slab>& slabs, const std::vector<std::uint8_t>& state, const std::vector<float>& queue,
                LocalManifest& manifest);
  /// The next bytes of the file, at most kLocalPieceBytes; empty at its end. Adds their checksum to the manifest.
  std::span<const std::byte> next();

 private:
  void add(const void* data, std::uint64_t bytes);
  LocalManifest& manifest_;
  std::vector<std::span<const std::byte>> stretches_;
  std::size_t stretch_ = 0, within_ = 0;
  std::vector<std::byte> piece_;
};

/// A file being written. It remembers its first failure, so that the exchange with other ranks can run to its end.
class LocalOutput {
 public:
  explicit LocalOutput(std::string path);
  ~LocalOutput();
  LocalOutput(const LocalOutput&) = delete;
  LocalOutput& operator=(const LocalOutput&) = delete;
  void write(std::span<const std::byte> bytes);
  /// Syncs. Error(file) if this or an earlier write failed.
  void finish();

 private:
  std::string path_;
  int fd_ = -1, error_ = 0;
};

}  // namespace seer::checkpoint
