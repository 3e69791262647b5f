// SPDX-License-Identifier: Apache-2.0
// One rank's part of a local set: rank-<n>.bin holds the bytes and rank-<n>.json describes them. The latter is written
// last; its presence means that the former is complete.
#pragma once

#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::checkpoint {

/// Parts are written, sent and checked in pieces of this many bytes.
constexpr std::size_t kLocalPieceBytes = std::size_t{8} << 20;

struct LocalSlab {
  std::string group, name;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0, end = 0;
  std::uint64_t offset_bytes = 0;  ///< where element `begin` lies in the file
  std::uint64_t bytes() const { return static_cast<std::uint64_t>(end - begin) * sizeof(float); }
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

/// Does the step unless an earlier one has failed, and remembers its failure, so that the exchange with other ranks can
/// run to its end.
void attempt(std::optional<Error>& failure, const auto& step) {
  if (failure) return;
  try {
    step();
  } catch (const Error& e) {
    failure = e;
  }
}

}  // namespace seer::checkpoint
