// SPDX-License-Identifier: Apache-2.0
// All files below a folder, each once, whatever links there are.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "pack_names.hpp"
#include "pack_source.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

const char* name_of(fs::file_type type) {
  switch (type) {
    case fs::file_type::socket:
      return "a socket";
    case fs::file_type::fifo:
      return "a pipe";
    case fs::file_type::block:
    case fs::file_type::character:
      return "a device";
    default:
      return "of an unknown type";
  }
}

}  // namespace

void add_file(std::string& files, const std::string& name, const std::string& refusal) {
  files += name;
  files += '\0';
  files += refusal;
  files += '\0';
}

std::string FolderWalk::files(const std::string& root) {
  root_ = root;
  while (root_.size() > 1 && root_.ends_with('/')) root_.pop_back();
  found_.clear();
  if (enter("")) visit("", Links::follow);
  // Links after all that has a name of its own; those behind links in a round of their own. Sorted, for folders have no
  // order.
  while (!links_.empty()) {
    auto round = std::move(links_);
    links_.clear();
    std::sort(round.begin(), round.end());
    for (const auto& link : round) follow(link);
  }
  std::sort(linked_files_.begin(), linked_files_.end());
  for (const auto& link : linked_files_) add_linked_file(link);
  linked_files_.clear();
  // What is not in the split is listed to be counted, and does not keep a linked folder from the split.
  for (const auto& name : other_splits_) visit(name, Links::list);
  other_splits_.clear();
  std::sort(found_.begin(), found_.end());
  std::string files;
  for (const auto& [name, refusal] : found_) add_file(files, name, refusal);
  return files;
}

void FolderWalk::visit(const std::string& prefix, Links links) {
  std::error_code error;
  fs::directory_iterator entries(full(prefix), error);
  if (error) {
    found_.emplace_back(prefix, fmt::format("unreadable: the folder cannot be listed: {}", error.message()));
    return;
  }
  while (entries != fs::directory_iterator()) {
    const std::string own = entries->path().filename().string(), name = prefix + own;
    const auto type = entries->symlink_status(error).type();
    const bool other_split =
        prefix.empty() && !rules_.split.empty() && own != rules_.split && archive_stem(own) != rules_.split;
    if (!rules_.hidden && !hidden_kind(own).empty()) {
      found_.emplace_back(name, "");  // to be counted
    } else if (type == fs::file_type::symlink && (links == Links::list || other_split)) {
      found_.emplace_back(prefix.empty() && fs::is_directory(full(name), error) ? name + "/" : name, "");
    } else if (type == fs::file_type::symlink) {
      links_.push_back(name);
    } else if (type == fs::file_type::directory) {
      if (other_split) {
        other_splits_.push_back(name + "/");
      } else if (links == Links::list || enter(name)) {
        visit(name + "/", links);
      }
    } else if (type == fs::file_type::regular) {
      found_.emplace_back(name, "");
    } else {
      found_.emplace_back(name, fmt::format("unreadable: {}", name_of(type)));
    }
    entries.increment(error);
    if (error) {
      found_.emplace_back(prefix,
                          fmt::format("unreadable: not all of the folder could be listed: {}", error.message()));
    }
  }
}

// Marks the folder as entered. Returns false, and adds a line that says why, if it was entered before or is unreadable.
bool FolderWalk::enter(const std::string& name) {
  struct stat info {};
  if (::stat(full(name).c_str(), &info) != 0) {
    found_.emplace_back(name + "/", fmt::format("unreadable: {}", std::strerror(errno)));
    return false;
  }
  const auto [before, is_new] = entered_.try_emplace({info.st_dev, info.st_ino}, full(name));
  if (!is_new)
    found_.emplace_back(name.empty() ? "" : name + "/", fmt::format("repeated: the same folder as {}", before->second));
  return is_new;
}

void FolderWalk::follow(const std::string& link) {
  std::error_code error;
  const auto type = fs::status(full(link), error).type();
  if (type == fs::file_type::directory) {
    if (enter(link)) visit(link + "/", Links::follow);
  } else if (type == fs::file_type::regular) {
    linked_files_.push_back(link);
  } else if (type == fs::file_type::not_found) {
    std::error_code ignored;
    // A split's own link: the slash says that it is not a file beside the splits.
    found_.emplace_back(link == rules_.split ? link + "/" : link,
                        fmt::format("unreadable: a broken link to {}", fs::read_symlink(full(link), ignored).string()));
  } else {
    found_.emplace_back(link, fmt::format("unreadable: {}", error ? error.message() : name_of(type)));
  }
}

void FolderWalk::add_linked_file(const std::string& link) {
  std::error_code error;
  const fs::path real = fs::canonical(full(link), error);
  struct stat folder {};
  std::string refusal;
  if (!error && ::stat(real.parent_path().c_str(), &folder) == 0) {
    const auto entered = entered_.find({folder.st_dev, folder.st_ino});
    const bool hidden = !rules_.hidden && !hidden_kind(real.filename().string()).empty();
    const bool outside_split = !rules_.split.empty() && entered != entered_.end() && entered->second == root_;
    const bool has_own_name = entered != entered_.end() && !hidden && !outside_split;
    if (has_own_name || !real_files_.insert(real.string()).second) {
      refusal = fmt::format("repeated: a link to {}, which is there already", real.string());
    }
  }
  found_.emplace_back(link, refusal);
}

}  // namespace seer::data
