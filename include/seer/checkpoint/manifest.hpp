// SPDX-License-Identifier: Apache-2.0
// The folder of a checkpoint: its name, moves that leave no half of one, and its manifest.json, which says what
// state.h5 holds and where, with checksums of all its bytes. The manifest is written last, so its presence means that
// the checkpoint is complete. It ends in its own checksum.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace seer::checkpoint {

/// Most elements written, read and checked at a time. This bounds memory and lets ranks share large tensors.
constexpr std::int64_t kPieceElements = std::int64_t{1} << 24;

/// Elements [begin, end) of a tensor, written by one rank.
struct Piece {
  std::int64_t begin = 0, end = 0;
  std::uint64_t xxh3 = 0;  ///< checksum of the elements' bytes (float32, little-endian)
};

/// Product of the extents of a shape.
std::int64_t elements_of(const std::vector<std::int64_t>& shape);
/// "[32, 3, 3, 3]"
std::string shape_text(const std::vector<std::int64_t>& shape);

struct TensorRecord {
  std::string group, name;
  std::vector<std::int64_t> shape;
  std::uint64_t offset_bytes = 0;  ///< where element 0 lies in state.h5
  std::vector<Piece> pieces;       ///< ascending, without gaps
  std::int64_t elements() const { return elements_of(shape); }
};

struct Manifest {
  std::int64_t update = 0;
  std::int64_t ranks = 0;
  std::string build;
  std::uint64_t file_bytes = 0;         ///< size of state.h5
  std::uint64_t state_xxh3 = 0;         ///< checksum of the values in /state and the configuration, see state.hpp
  std::uint64_t outside_xxh3 = 0;       ///< checksum of state.h5 outside the tensors (HDF5 metadata, /state, padding)
  std::vector<TensorRecord> tensors{};  ///< ascending by group and name

  const TensorRecord* find(const std::string& group, const std::string& name) const;
};

std::string to_json(const Manifest& manifest);
/// Error(file) names the first problem; `path` appears in the message.
Manifest parse_manifest(const std::string& text, const std::string& path);
/// Reads the manifest and compares it with the folder: its name, which files exist, their sizes. Error(file) with the
/// first problem.
Manifest read_manifest(const std::string& folder);

/// Checksum of all bytes of state.h5 outside the manifest's tensors. The ranges between tensors are cut into pieces of
/// at most 64 MiB; the result is the XXH3 of the pieces' XXH3s (8 bytes each, little-endian) in file order.
std::uint64_t outside_checksum(const std::string& path, const Manifest& manifest);
/// Verifies share `part` of `parts` of a checkpoint's tensors. Part 0 also verifies the bytes outside the tensors.
/// Error(file) names the first problem.
void verify_share(const std::string& folder, const Manifest& manifest, int part, int parts);

inline std::filesystem::path checkpoints_folder(const std::string& run_dir) {
  return std::filesystem::path(run_dir) / "checkpoints";
}
/// "update-00001234"
std::string folder_name(std::int64_t update);
/// The inverse of folder_name; nothing for any other name.
std::optional<std::int64_t> folder_update(const std::string& name);

/// Updates and paths, newest first, of what has the name of a checkpoint folder. Contents are not checked, nor that it
/// is a folder.
using Folders = std::vector<std::pair<std::int64_t, std::filesystem::path>>;
/// Those in a folder. `error` says if it cannot be read.
Folders folders_in(const std::filesystem::path& folder, std::error_code& error);
/// Those of a run; none if it has no checkpoints folder. Error(file) if that exists but cannot be read, since it may
/// hold a week of work.
Folders list_folders(const std::string& run_dir);

/// Moves a finished temporary folder to its final path. Deletes an earlier folder of that name only afterwards.
void commit_folder(const std::filesystem::path& temporary, const std::filesystem::path& final_path);
/// Deletes a checkpoint folder. Renames it first, so that an interrupted deletion does not look like damage. Warns if
/// it fails.
void discard(const std::filesystem::path& folder);
/// Removes what interrupted saves and deletions left behind, and restores what an interrupted replacement moved aside.
void clear_leftovers(const std::filesystem::path& checkpoints);

}  // namespace seer::checkpoint
