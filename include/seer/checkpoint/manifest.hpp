// SPDX-License-Identifier: Apache-2.0
// manifest.json of a checkpoint: what its state.h5 holds, where it lies in the file, and checksums of all its bytes.
// The manifest is written last, so its presence means that the checkpoint is complete. It ends in its own checksum.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::checkpoint {

/// Most elements written, read and checked at a time. This bounds memory and lets ranks share large tensors.
constexpr std::int64_t kPieceElements = std::int64_t{1} << 24;

/// Elements [begin, end) of a tensor, written by one rank.
struct Piece {
  std::int64_t begin = 0, end = 0;
  std::uint64_t xxh3 = 0;  ///< checksum of the elements' bytes (float32, little-endian)
};

struct TensorRecord {
  std::string group, name;
  std::vector<std::int64_t> shape;
  std::uint64_t offset_bytes = 0;  ///< where element 0 lies in state.h5
  std::vector<Piece> pieces;       ///< ascending, without gaps
  std::int64_t elements() const;
};

struct Manifest {
  std::int64_t update = 0;
  std::int64_t ranks = 0;
  std::string build;
  std::uint64_t file_bytes = 0;       ///< size of state.h5
  std::uint64_t state_xxh3 = 0;       ///< checksum of the values in /state and the configuration, see state.hpp
  std::uint64_t outside_xxh3 = 0;     ///< checksum of state.h5 outside the tensors (HDF5 metadata, /state, padding)
  std::vector<TensorRecord> tensors;  ///< ascending by group and name

  const TensorRecord* find(const std::string& group, const std::string& name) const;
};

std::string to_json(const Manifest& manifest);
/// Error(file) names the first problem; `path` appears in the message.
Manifest parse_manifest(const std::string& text, const std::string& path);
/// Text of folder/manifest.json. Error(file) if it is missing or absurdly large.
std::string read_manifest_text(const std::string& folder);
/// Reads the manifest and compares it with the folder: its name, which files exist, their sizes. Error(file) with the
/// first problem.
Manifest read_manifest(const std::string& folder);

}  // namespace seer::checkpoint
