// SPDX-License-Identifier: Apache-2.0
// Lists all files below a folder, each once even if there are links.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

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

void FolderWalk::add_folder(const std::string& path) {
  Root root{path, {}, {}, {}, {}};
  while (root.path.size() > 1 && root.path.ends_with('/')) root.path.pop_back();
  roots_.push_back(std::move(root));
}

std::string FolderWalk::add_file(const std::string& path) {
  std::error_code error;
  const auto real = fs::canonical(path, error);
  source_names_.insert(real.filename().string());
  return error || real_files_.insert(real.string()).second
             ? ""
             : fmt::format("repeated: {} is there already", real.string());
}

std::vector<std::string> FolderWalk::files() {
  const auto each = [this](const auto& work) {
    for (auto& root : roots_) {
      root_ = &root;
      work(root);
    }
  };
  each([this](Root&) {
    if (enter("")) visit("", Links::follow);
  });
  // Follow links only after everything with its own name is listed. Links found behind links come in the next round.
  // Sort them, since folders have no order.
  const auto has_links = [](const Root& root) { return !root.links.empty(); };
  while (std::any_of(roots_.begin(), roots_.end(), has_links)) {
    each([this](Root& root) {
      auto round = std::exchange(root.links, {});
      std::sort(round.begin(), round.end());
      for (const auto& link : round) follow(link);
    });
  }
  each([this](Root& root) {
    std::sort(root.linked_files.begin(), root.linked_files.end());
    for (const auto& link : root.linked_files) add_linked_file(link);
    // List what lies outside the split only to count it. This does not mark folders as entered, so links in the split
    // can still lead to them.
    for (const auto& name : root.other_splits) visit(name, Links::list);
  });
  std::vector<std::string> out;
  for (auto& root : roots_) {
    std::sort(root.found.begin(), root.found.end());
    out.emplace_back();
    for (const auto& [name, refusal] : root.found) data::add_file(out.back(), name, refusal);
  }
  return out;
}

void FolderWalk::visit(const std::string& prefix, Links links) {
  std::error_code error;
  fs::directory_iterator entries(full(prefix), error);
  if (error) {
    root_->found.emplace_back(prefix, fmt::format("unreadable: the folder cannot be listed: {}", error.message()));
    return;
  }
  while (entries != fs::directory_iterator()) {
    const std::string own = entries->path().filename().string(), name = prefix + own;
    const auto type = entries->symlink_status(error).type();
    const bool other_split =
        prefix.empty() && !rules_.split.empty() && own != rules_.split && archive_stem(own) != rules_.split;
    if (!rules_.hidden && !hidden_kind(own).empty()) {
      root_->found.emplace_back(name, "");  // only to count it
    } else if (type == fs::file_type::symlink && (links == Links::list || other_split)) {
      root_->found.emplace_back(prefix.empty() && fs::is_directory(full(name), error) ? name + "/" : name, "");
    } else if (type == fs::file_type::symlink) {
      root_->links.push_back(name);
    } else if (type == fs::file_type::directory) {
      if (other_split) {
        root_->other_splits.push_back(name + "/");
      } else if (links == Links::list || enter(name)) {
        visit(name + "/", links);
      }
    } else if (type == fs::file_type::regular) {
      // A file that is also a source has already been added.
      const bool repeated = links == Links::follow && source_names_.contains(own) && is_source(full(name));
      root_->found.emplace_back(name, repeated ? "repeated: it is also a source" : "");
    } else {
      root_->found.emplace_back(name, fmt::format("unreadable: {}", name_of(type)));
    }
    entries.increment(error);
    if (error) {
      root_->found.emplace_back(prefix,
                                fmt::format("unreadable: not all of the folder could be listed: {}", error.message()));
    }
  }
}

// Marks the folder as entered. If it was entered before or is unreadable, adds a record and returns false.
bool FolderWalk::enter(const std::string& name) {
  struct stat info {};
  if (::stat(full(name).c_str(), &info) != 0) {
    root_->found.emplace_back(name + "/", fmt::format("unreadable: {}", std::strerror(errno)));
    return false;
  }
  const auto [before, is_new] = entered_.try_emplace({info.st_dev, info.st_ino}, full(name));
  if (!is_new)
    root_->found.emplace_back(name.empty() ? "" : name + "/",
                              fmt::format("repeated: the same folder as {}", before->second));
  return is_new;
}

bool FolderWalk::is_source(const std::string& path) const {
  std::error_code error;
  return real_files_.contains(fs::canonical(path, error).string());
}
bool FolderWalk::is_root(const std::string& path) const {
  return std::any_of(roots_.begin(), roots_.end(), [&](const Root& root) { return root.path == path; });
}

void FolderWalk::follow(const std::string& link) {
  std::error_code error;
  const auto type = fs::status(full(link), error).type();
  if (type == fs::file_type::directory) {
    if (enter(link)) visit(link + "/", Links::follow);
  } else if (type == fs::file_type::regular) {
    root_->linked_files.push_back(link);
  } else if (type == fs::file_type::not_found) {
    std::error_code ignored;
    // If the split itself is a link, the slash marks it as a folder, not a file next to the splits.
    root_->found.emplace_back(
        link == rules_.split ? link + "/" : link,
        fmt::format("unreadable: a broken link to {}", fs::read_symlink(full(link), ignored).string()));
  } else {
    root_->found.emplace_back(link, fmt::format("unreadable: {}", error ? error.message() : name_of(type)));
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
    const bool outside_split = !rules_.split.empty() && entered != entered_.end() && is_root(entered->second);
    const bool has_own_name = entered != entered_.end() && !hidden && !outside_split;
    if (has_own_name || !real_files_.insert(real.string()).second) {
      refusal = fmt::format("repeated: a link to {}, which is there already", real.string());
    }
  }
  root_->found.emplace_back(link, refusal);
}

}  // namespace seer::data
