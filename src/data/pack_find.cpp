// SPDX-License-Identifier: Apache-2.0
// Finds the sources of pack: lists all files below folders, each once even if there are links, and reads lists of
// paths.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "pack_parts.hpp"
#include "packed.hpp"
#include "seer/base/names.hpp"
#include "seer/data/image.hpp"

namespace seer::data {

static void fields(Packed& bytes, Source& s) {
  bytes(s.kind, s.given, s.path, s.files, s.folder, s.above);
}

namespace {

namespace fs = std::filesystem;

void add_file(std::string& files, const std::string& name, const std::string& refusal = "") {
  files += name + '\0' + refusal + '\0';
}

const char* name_of(fs::file_type type) {
  if (type == fs::file_type::socket) return "a socket";
  if (type == fs::file_type::fifo) return "a pipe";
  return type == fs::file_type::block || type == fs::file_type::character ? "a device" : "of an unknown type";
}

/// Lists folders and follows links. Enters every folder once: by its own name if it has one in any of the sources, else
/// by the first link. Also lists files that are reachable only by links, and files that are sources themselves, once.
/// If something cannot be listed, its record says why.
class FolderWalk {
 public:
  explicit FolderWalk(const PackOptions& options) : options_(options) {}

  void add_folder(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    roots_.emplace_back().path = std::move(path);
  }

  /// Adds a file that is a source. Returns "", or why it is left out: the file was already added.
  std::string add_source(const std::string& path) {
    std::error_code error;
    const auto real = fs::canonical(path, error);
    source_names_.insert(real.filename().string());
    return error || real_files_.insert(real.string()).second
               ? ""
               : fmt::format("repeated: {} is there already", real.string());
  }

  /// Source::files of each added folder, sorted by name. Names of refused folders end with '/'.
  std::vector<std::string> files() {
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
    while (std::ranges::any_of(roots_, [](const Root& root) { return !root.links.empty(); }))
      each([this](Root& root) {
        auto round = std::exchange(root.links, {});
        std::ranges::sort(round);
        for (const auto& link : round) follow(link);
      });
    each([this](Root& root) {
      std::ranges::sort(root.linked_files);
      for (const auto& link : root.linked_files) add_linked_file(link);
      // List what lies outside the split only to count it. This does not mark folders as entered, so links in the split
      // can still lead to them.
      for (const auto& name : root.other_splits) visit(name, Links::list);
    });
    std::vector<std::string> out;
    for (auto& root : roots_) {
      std::ranges::sort(root.found);
      out.emplace_back();
      for (const auto& [name, refusal] : root.found) add_file(out.back(), name, refusal);
    }
    return out;
  }

 private:
  struct Root {
    std::string path;
    std::vector<std::pair<std::string, std::string>> found;      // name, refusal
    std::vector<std::string> links, linked_files, other_splits;  // names
  };
  enum class Links : std::uint8_t { follow, list };

  std::string full(const std::string& name) const { return name.empty() ? root_->path : root_->path + "/" + name; }
  void add(const std::string& name, const std::string& refusal = "") { root_->found.emplace_back(name, refusal); }

  void visit(const std::string& prefix, Links links) {
    std::error_code error;
    fs::directory_iterator entries(full(prefix), error);
    if (error) return add(prefix, fmt::format("unreadable: the folder cannot be listed: {}", error.message()));
    while (entries != fs::directory_iterator()) {
      const std::string own = entries->path().filename().string(), name = prefix + own;
      const auto type = entries->symlink_status(error).type();
      const bool other_split =
          prefix.empty() && !options_.split.empty() && own != options_.split && archive_stem(own) != options_.split;
      if (!options_.hidden && !hidden_kind(own).empty()) {
        add(name);  // only to count it
      } else if (type == fs::file_type::symlink && (links == Links::list || other_split)) {
        add(prefix.empty() && fs::is_directory(full(name), error) ? name + "/" : name);
      } else if (type == fs::file_type::symlink) {
        root_->links.push_back(name);
      } else if (type == fs::file_type::directory) {
        if (other_split)
          root_->other_splits.push_back(name + "/");
        else if (links == Links::list || enter(name))
          visit(name + "/", links);
      } else if (type == fs::file_type::regular) {
        // A file that is also a source has already been added.
        const bool repeated = links == Links::follow && source_names_.contains(own) &&
                              real_files_.contains(fs::canonical(full(name), error).string());
        add(name, repeated ? "repeated: it is also a source" : "");
      } else {
        add(name, fmt::format("unreadable: {}", name_of(type)));
      }
      entries.increment(error);
      if (error) add(prefix, fmt::format("unreadable: not all of the folder could be listed: {}", error.message()));
    }
  }

  // Marks the folder as entered. If it was entered before or is unreadable, adds a record and returns false.
  bool enter(const std::string& name) {
    struct stat info {};
    if (::stat(full(name).c_str(), &info) != 0) {
      add(name + "/", fmt::format("unreadable: {}", std::strerror(errno)));
      return false;
    }
    const auto [before, is_new] = entered_.try_emplace({info.st_dev, info.st_ino}, full(name));
    if (!is_new) add(name.empty() ? "" : name + "/", fmt::format("repeated: the same folder as {}", before->second));
    return is_new;
  }

  void follow(const std::string& link) {
    std::error_code error, ignored;
    const auto type = fs::status(full(link), error).type();
    if (type == fs::file_type::directory) {
      if (enter(link)) visit(link + "/", Links::follow);
    } else if (type == fs::file_type::regular) {
      root_->linked_files.push_back(link);
    } else if (type == fs::file_type::not_found) {
      // If the split itself is a link, the slash marks it as a folder, not a file next to the splits.
      add(link == options_.split ? link + "/" : link,
          fmt::format("unreadable: a broken link to {}", fs::read_symlink(full(link), ignored).string()));
    } else {
      add(link, fmt::format("unreadable: {}", error ? error.message() : name_of(type)));
    }
  }

  void add_linked_file(const std::string& link) {
    std::error_code error;
    const fs::path real = fs::canonical(full(link), error);
    struct stat folder {};
    std::string refusal;
    if (!error && ::stat(real.parent_path().c_str(), &folder) == 0) {
      const auto entered = entered_.find({folder.st_dev, folder.st_ino});
      const bool hidden = !options_.hidden && !hidden_kind(real.filename().string()).empty();
      const auto is_entered = [&](const Root& root) { return root.path == entered->second; };
      const bool has_own_name =
          entered != entered_.end() && !hidden && (options_.split.empty() || std::ranges::none_of(roots_, is_entered));
      if (has_own_name || !real_files_.insert(real.string()).second)
        refusal = fmt::format("repeated: a link to {}, which is there already", real.string());
    }
    add(link, refusal);
  }

  const PackOptions& options_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::string> entered_;  // device, inode -> path by which entered
  std::set<std::string> real_files_;    // real paths of files that are sources or targets of links
  std::set<std::string> source_names_;  // file names of those that are sources
  std::vector<Root> roots_;
  Root* root_ = nullptr;  // the one being listed
};

// Last name in the path, made absolute; "" if it has none.
std::string folder_name(const std::string& path) {
  std::error_code error;
  auto folder = fs::absolute(path.empty() ? "." : path, error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  return folder.filename().string();
}

// Returns 1 if everything in the archive lies in one top folder, as in most archives; "directly inside" then means
// inside that folder. Returns 0 otherwise, or if the top folder is the split itself and contains no splits.
std::uint64_t top_folders(const std::string& path, const PackOptions& options) try {
  ArchiveReader reader(path);
  std::string top;
  bool splits_in_it = false;
  for (Candidate entry; reader.next(entry);) {
    const auto parts = parts_of(entry.name);
    const auto is_hidden = [](auto part) { return !hidden_kind(part).empty(); };
    if (!options.hidden && std::any_of(parts.begin(), parts.end(), is_hidden)) continue;
    const bool is_text = parts.size() == 1 && !is_image_name(entry.name) && archive_stem(entry.name).empty();
    if (is_text) continue;  // a README next to the folder
    if (parts.size() < 2 || (!top.empty() && parts[0] != top)) return 0;
    top = parts[0];
    splits_in_it |= parts.size() > 2 && (parts[1] == options.split || is_split_name(parts[1]));
  }
  return top.empty() || (top == options.split && !splits_in_it) ? 0 : 1;
} catch (const BrokenArchive&) {
  return 0;  // reported when the archive is read
}

// Reads a text file with one path per line.
Source read_list(const std::string& path) {
  std::ostringstream all;
  all << std::ifstream(path, std::ios::binary).rdbuf();
  auto text = all.str();
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty()) fail(fmt::format("{}: {}", path, wrong));
  if (text.find('\0') != std::string::npos)
    fail(fmt::format("{}: found a zero byte", path), "a list is UTF-8 text with one path a line");
  Source source{Source::Kind::list, path, fs::path(path).parent_path().string(), "", "", 0};
  // "Inside" a list means below the longest folder that all its paths have in common.
  std::optional<std::vector<std::string>> common;
  std::ranges::replace(text, '\r', '\n');
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line.resize(line.find_last_not_of(" \t") + 1);
    remove_byte_order_mark(line);  // concatenated lists have one in the middle
    if (line.empty()) continue;
    if (line.starts_with("~/")) line = expand_home(line).value_or(line);
    add_file(source.files, line);
    auto parts = parts_of(line);
    if (!parts.empty()) parts.pop_back();
    if (!common) common.emplace(parts.begin(), parts.end());
    common->erase(std::ranges::mismatch(*common, parts).in1, common->end());
  }
  source.above = common ? common->size() : 0;
  return source;
}

Source find_source(const std::string& path, const PackOptions& options, FolderWalk& walk) {
  using Kind = Source::Kind;
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) fail(fmt::format("{}: no such file or folder", path), "correct the path of the source");
  if (fs::is_directory(status)) {
    walk.add_folder(path);
    return {Kind::folder, path, path, "", folder_name(path), 0};
  }
  if (!fs::is_regular_file(status)) fail(fmt::format("{}: neither file nor folder", path));
  if (const auto stem = archive_stem(path); !stem.empty()) {
    const auto repeated = walk.add_source(path);
    if (repeated.empty())
      return {Kind::archive, path, path, "", std::string(stem), options.split.empty() ? 0 : top_folders(path, options)};
    Source source{Kind::list, path, "", "", "", 0};
    add_file(source.files, path, repeated);
    return source;
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)), "check its permissions");
  std::string start(4096, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  const fs::path file(path);
  const std::string folder = file.parent_path().string();
  Source source{Kind::list, path, folder, "", "", 0};
  if (read_header({reinterpret_cast<const std::uint8_t*>(start.data()), start.size()}).kind != ImageKind::unknown) {
    source.above = 1;  // the user named it, so it may be hidden
    add_file(source.files, file.filename().string(), walk.add_source(path));
  } else {
    if (remove_byte_order_mark(start).empty() && start.find('\0') != std::string::npos)
      fail(
          fmt::format("{}: neither a folder, an archive, a list of paths nor an image", path),
          "the name of an archive ends in .tar .tar.gz .tgz .tar.zst .tar.xz or .tar.bz2 (unpack others, such as ZIP); "
          "a list is UTF-8 text with one path a line (convert UTF-16: iconv -f UTF-16 -t UTF-8)");
    source = read_list(path);
  }
  source.folder = folder_name(folder);
  return source;
}

}  // namespace

SourceList find_sources(const PackOptions& options, const comm::Communicator& comm) {
  SourceList list;
  comm::agree(comm, "finding the sources", [&] {
    if (!comm.is_root()) return;
    FolderWalk walk(options);
    for (const auto& p : options.sources) list.push_back(find_source(p, options, walk));
    const auto files = walk.files();
    auto next = files.begin();
    for (auto& source : list)
      if (source.kind == Source::Kind::folder) source.files = *next++;
  });
  share(comm, list);
  return list;
}

}  // namespace seer::data
