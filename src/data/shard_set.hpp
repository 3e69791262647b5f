// SPDX-License-Identifier: Apache-2.0
// One pack makes one set of shards. Each shard records its set, and <name>.manifest.json in the same folder lists the
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
    std::string name, set;  ///< set: "" if the shard does not record one
    std::uint64_t images = 0, bytes = 0;
  };
  bool complete = false;    ///< false: files are being named, or the pack was killed while it named them
  std::vector<File> files;  ///< if complete: all files of the name; else those that the pack keeps
};

/// "<folder>/<name>.manifest.json"
std::string manifest_path(const std::string& folder, const std::string& name);
/// Returns nothing if there is no manifest. Error(file) if it cannot be parsed.
std::optional<Manifest> read_manifest(const std::string& folder, const std::string& name);
/// Replaces an earlier manifest atomically. The new one is on disk when this returns. Error(file).
void write_manifest(const std::string& folder, const std::string& name, const Manifest& manifest);

/// Error(file) if a manifest in this folder says that a pack did not finish, even if there are no shards.
void want_finished(const std::string& folder);

/// "<folder>/<name>-00012.h5"
std::string shard_path(const std::string& folder, const std::string& name, std::size_t number);
/// Name and number from "<name>-00012.h5", a file name without folder; nothing for other names.
std::optional<std::pair<std::string, std::size_t>> parse_shard_name(const std::string& file);

/// Error(file) for parts of different packs under one name, for files of a pack that did not finish, and for a set with
/// missing shards. If the files were chosen one by one or by a pattern, missing shards only give a warning with their
/// number. Warns if a shard is present twice. `chosen[i]` belongs to `shards[i]`.
void check_sets(const std::vector<ShardInfo>& shards, const std::vector<ChosenShard>& chosen);

}  // namespace seer::data
