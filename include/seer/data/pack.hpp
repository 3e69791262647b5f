// SPDX-License-Identifier: Apache-2.0
// Packs images into shards. Every file is decoded once to check it, and stored byte for byte.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// What to do with shards of the same name that the output folder already holds.
enum class Existing : std::uint8_t {
  refuse,   ///< Error(input) if there are any
  replace,  ///< delete them once the new ones are complete
  append,   ///< keep them; the new ones get the numbers after theirs
};

struct PackOptions {
  std::vector<std::string> sources;  ///< folders, .tar[.gz] archives, lists of paths, single images
  std::string folder;                ///< where <name>-00000.h5 ... and rejects.jsonl go
  bool labels = true;                ///< class = name of the folder or archive that holds the image
  std::string split;                 ///< take only files below this folder directly inside a source; also the shards'
                                     ///< name ("": images)
  bool hidden = false;               ///< also take hidden files and folders
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;  ///< bytes of encoded images per shard; at least one image
  std::int64_t min_side = 1;                           ///< minimum for the shorter side, pixels
  std::int64_t max_pixels = 50'000'000;
  bool reject_duplicates = false;  ///< with append: also duplicates of images in the existing shards
  Existing existing = Existing::refuse;
};

struct PackResult {
  std::uint64_t files = 0;  ///< files examined: accepted and rejected
  std::uint64_t accepted = 0, bytes = 0, shards = 0;
  std::map<std::string, std::uint64_t> rejected;  ///< kind of reason ("broken", "duplicate", ...) -> files
  std::map<std::string, std::uint64_t> left_out;  ///< skipped because of their names: "hidden: .git" -> files, folders
  std::vector<std::string> classes;
  std::uint64_t archives = 0;    ///< archives read inside the sources
  std::uint64_t of_archive = 0;  ///< images whose class is the name of the archive
  double seconds = 0, verify_seconds = 0;
  std::size_t peak_bytes = 0;  ///< peak resident memory, maximum over ranks
};

/// Collective. The output files do not depend on the number of ranks. Makes two passes over the sources: first each of
/// the R ranks decodes every R-th file, then each writes every R-th shard. So a rank holds no more than one image and
/// one buffer, plus about 50 bytes of bookkeeping per image. Shards get their final names once all are complete and
/// synced; <name>.manifest.json is written last. If the call is killed at any time, the folder holds the old set, the
/// new set, or a state that DataSet::open refuses. Warns if several splits are packed together, or if a split takes
/// everything. Error(file): missing source, folder not writable, no room, no image.
PackResult pack(const PackOptions& options, const comm::Communicator& comm);

}  // namespace seer::data
