// SPDX-License-Identifier: Apache-2.0
// One pack is one set of shards. Each shard says which set it is of, and <name>.manifest.json beside them lists the
// files of a name (docs/formats.md). Private to the module.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/data/shard.hpp"
#include "shard_list.hpp"

namespace seer::data {

struct Manifest {
  struct File {
    std::string name, set;  ///< set: "" of a shard that does not say
    std::uint64_t images = 0, bytes = 0;
  };
  bool complete = false;    ///< false: files are being named, or were when the pack was killed
  std::vector<File> files;  ///< complete: all of the name; else those that stay
};

/// "<folder>/<name>.manifest.json"
std::string manifest_path(const std::string& folder, const std::string& name);
/// Nothing where there is none. Error(file) for one that is not understood.
std::optional<Manifest> read_manifest(const std::string& folder, const std::string& name);
/// Takes the place of an earlier one at once, and is on disk when this returns. Error(file).
void write_manifest(const std::string& folder, const std::string& name, const Manifest& manifest);

/// Error(file) if a manifest in this folder says that a pack did not finish, whether or not shards are there.
void want_finished(const std::string& folder);

/// "<folder>/<name>-00012.h5"
std::string shard_path(const std::string& folder, const std::string& name, std::size_t number);
/// Name and number of "<name>-00012.h5", the file's name without folder; nothing for other names.
std::optional<std::pair<std::string, std::size_t>> parse_shard_name(const std::string& file);

/// Error(file) for parts of different packs under one name, for files of a pack that did not finish, and for a set of
/// which shards are missing, unless the files were chosen one by one or by a pattern: then a warning says how many are
/// left out. A shard that is there twice is warned of. `chosen` belongs to `shards`, one to one.
void check_sets(const std::vector<ShardInfo>& shards, const std::vector<ChosenShard>& chosen);

}  // namespace seer::data
