// SPDX-License-Identifier: Apache-2.0
// One rank's part of a local set: rank-<n>.bin, the bytes, and rank-<n>.json, what they are. The latter is written last
// and says that the former is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"

namespace seer::checkpoint {

/// Parts are written, sent and checked in pieces of so many bytes.
constexpr std::size_t kLocalPieceBytes = std::size_t{8} << 20;

struct LocalSlab {
  std::string group, name;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0, end = 0;
  std::uint64_t offset_bytes = 0;  ///< of element `begin` in the file
};

struct LocalManifest {
  std::int64_t update = 0, rank = 0, ranks = 0;
  std::string save{};                              ///< the same for all parts of a set
  std::uint64_t bytes = 0;                         ///< of the file
  std::uint64_t state_bytes = 0, queue_bytes = 0;  ///< at its beginning; only rank 0's has them
  std::vector<LocalSlab> slabs{};
  std::vector<std::uint64_t> pieces{};  ///< XXH3 of every piece of the file
};

std::string to_json(const LocalManifest& manifest);
/// Error(file); `path` stands in the message.
LocalManifest parse_local_manifest(const std::string& text, const std::string& path);
/// Path without extension of a rank's part.
std::string local_part(const std::string& folder, std::int64_t rank);
/// The manifest of `part`, held against the size of the file. Error(file).
LocalManifest read_local_manifest(const std::string& part);
/// Reads every byte; "" or the first problem.
std::string verify_local(const std::string& part);

/// What a rank's file will hold, gathered from where it lies.
class LocalContents {
 public:
  /// Keeps pointers into all of these.
  LocalContents(const std::vector<Slab>& slabs, const std::vector<std::uint8_t>& state, const std::vector<float>& queue,
                LocalManifest& manifest);
  /// The next bytes of the file, at most kLocalPieceBytes; empty at its end. Notes their checksum in the manifest.
  std::span<const std::byte> next();

 private:
  void add(const void* data, std::uint64_t bytes);
  LocalManifest& manifest_;
  std::vector<std::span<const std::byte>> stretches_;
  std::size_t stretch_ = 0, within_ = 0;
  std::vector<std::byte> piece_;
};

/// A file being written; remembers its first failure, so that a protocol with others can go on to its end.
class LocalOutput {
 public:
  explicit LocalOutput(std::string path);
  ~LocalOutput();
  LocalOutput(const LocalOutput&) = delete;
  LocalOutput& operator=(const LocalOutput&) = delete;
  void write(std::span<const std::byte> bytes);
  /// Syncs. Error(file) where this or anything before failed.
  void finish();

 private:
  std::string path_;
  int fd_ = -1, error_ = 0;
};

}  // namespace seer::checkpoint
