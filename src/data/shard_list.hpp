// SPDX-License-Identifier: Apache-2.0
// The files that the text of data.shards, --train and the like means. Private to the module.
#pragma once

#include <string>
#include <vector>

namespace seer::data {

struct ChosenShard {
  std::string path;
  bool by_folder = false;  ///< its whole folder was asked for; else the file itself, or a pattern that it matches
};

/// Sorted by path, each once. The text is a folder (its *.h5), a file or a glob, or several of these separated by
/// commas. A name that holds commas is found if it is the whole text, else if they are written as "\,". Error(file):
/// nothing there.
std::vector<ChosenShard> find_shards(const std::string& text);

/// The *.h5 of a folder that are not hidden, sorted. Error(file).
std::vector<std::string> shards_in(const std::string& folder);

}  // namespace seer::data
