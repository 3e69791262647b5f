// SPDX-License-Identifier: Apache-2.0
// Piles of images to shards: every file is decoded once to be sure of it, and stored byte for byte.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// What becomes of shards of the same name that are in the output folder.
enum class Existing : std::uint8_t {
  refuse,   ///< Error(input) if there are any
  replace,  ///< they go when the new ones are complete
  append,   ///< they stay, and the new ones get the numbers behind theirs
};

struct PackOptions {
  std::vector<std::string> sources;  ///< folders, .tar[.gz] archives, lists of paths, single images
  std::string folder;                ///< where <name>-00000.h5 ... and rejects.jsonl go
  bool labels = true;                ///< class = name of the folder that holds the image, or of the archive
  std::string split;                 ///< only files below this folder directly inside a source; also the shards' name
                                     ///< ("": images)
  bool hidden = false;               ///< take hidden files and folders, too
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;  ///< of encoded images; at least one image a shard
  std::int64_t min_side = 1;                           ///< pixels of the shorter side
  std::int64_t max_pixels = 50'000'000;
  bool reject_duplicates = false;  ///< with append also of images that are there
  Existing existing = Existing::refuse;
};

struct PackResult {
  std::uint64_t files = 0;  ///< looked at: accepted and rejected
  std::uint64_t accepted = 0, bytes = 0, shards = 0;
  std::map<std::string, std::uint64_t> rejected;  ///< kind of reason ("broken", "duplicate", ...) -> files
  std::map<std::string, std::uint64_t>
      left_out;  ///< not looked at, by their names: "hidden: .git" -> files and folders
  std::vector<std::string> classes;
  std::uint64_t archives = 0;    ///< read inside the sources
  std::uint64_t of_archive = 0;  ///< images whose class is the name of the archive
  double seconds = 0, verify_seconds = 0;
  std::size_t peak_bytes = 0;  ///< resident, the largest of all ranks
};

/// Collective; the same files whatever the number of ranks. Two passes over the sources: first each rank decodes every
/// R-th file, then each rank writes every R-th shard, so that no more than one image and one buffer are held by a rank
/// (beside about 50 bytes an image of bookkeeping). Shards get their names when all are complete and synced, and
/// <name>.manifest.json says so last: whenever it is killed, the old set is there, or the new one, or what
/// DataSet::open refuses. Warns of splits that lie beside each other or take everything.
/// Error(file): missing source, folder not writable, no room, no image.
PackResult pack(const PackOptions& options, const comm::Communicator& comm);

}  // namespace seer::data
