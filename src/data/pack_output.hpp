// SPDX-License-Identifier: Apache-2.0
// The folder that pack writes into: names, leftovers of earlier calls, refusals. Private to pack*.cpp and synth.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/data/shard_writer.hpp"

namespace seer::data {

struct Reject {
  std::string path, reason;  ///< reason: "kind: details"
  std::uint64_t bytes = 0;
};

/// "<folder>/<name>-00012.h5"
std::string shard_path(const std::string& folder, const std::string& name, std::size_t index);
/// Makes the folder, tries that it can be written to, and removes temporaries that an interrupted call left.
/// Error(file).
void prepare_folder(const std::string& folder, const std::string& name);
/// <folder>/rejects.jsonl: one object a refused file; lines of other names (splits) are kept.
void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects);
/// Error(file) if the file system has fewer free bytes.
void want_room(const std::string& folder, std::uint64_t bytes);
/// Removes shards of this name from index `from` on: an earlier call made more of them.
void remove_shards(const std::string& folder, const std::string& name, std::size_t from);

}  // namespace seer::data
