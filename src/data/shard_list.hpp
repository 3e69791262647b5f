// SPDX-License-Identifier: Apache-2.0
// Finds the files that data.shards, --train and similar options name. Private to the module.
#pragma once

#include <string>
#include <vector>

namespace seer::data {

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

}  // namespace seer::data
