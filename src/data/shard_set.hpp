// SPDX-License-Identifier: Apache-2.0
// Finds the files that data.shards, --train and similar options name, and checks the sets that they form. One pack
// makes one set of shards. Each shard records its set, and <name>.manifest.json in the same folder lists the files of a
// name (docs/formats.md). Private to the module.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {

/// Throws Error(file).
[[noreturn]] inline void fail(const std::string& what, std::string remedy = "",
                              std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, what, std::move(remedy), where);
}

struct ChosenShard {
  std::string path;
  bool by_folder = false;  ///< its folder was named; else the file itself, or a pattern that it matches
};

/// Returns the files sorted by path, each once. The text is a folder (its *.h5), a file or a glob, or several of these
/// separated by commas. A comma within a name is written as "\,", unless the name is the whole text. Error(file) if
/// there is nothing of a name.
std::vector<ChosenShard> find_shards(const std::string& text);

/// The *.h5 files of a folder, sorted, without hidden ones. Error(file).
std::vector<std::string> shards_in(const std::string& folder);

struct Manifest {
  struct File {
    std::string name, set;  ///< set: "" if the shard does not record one
    std::uint64_t images = 0, bytes = 0;
  };
  bool complete = false;    ///< false: files are being named, or the pack was killed while it named them
  std::vector<File> files;  ///< if complete: all files of the name; else those that the pack keeps
};

/// Returns nothing if there is no manifest. Error(file) if it cannot be parsed.
std::optional<Manifest> read_manifest(const std::string& folder, const std::string& name);
/// Replaces an earlier manifest atomically. The new one is on disk when this returns. Error(file).
void write_manifest(const std::string& folder, const std::string& name, const Manifest& manifest);
/// Replaces a file atomically: its content is on disk before it gets its name. Error(file).
void replace_file(const std::string& path, const std::string& content);

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
