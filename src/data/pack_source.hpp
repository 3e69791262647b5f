// SPDX-License-Identifier: Apache-2.0
// The files that pack is to look at, one after another: folders, archives, lists. Private to pack*.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// Which files of the sources are wanted.
struct SourceRules {
  std::string split;    ///< only those below the folder (or in the archive) of this name directly inside a source
  bool hidden = false;  ///< hidden ones, too (hidden_kind)
};

/// One candidate file. The same sequence on every rank. Names are bytes as the file system or the archive has them.
struct Candidate {
  std::string path;         ///< for messages: as reachable from where the command was called, or archive:entry
  std::string name;         ///< within its source
  std::string folder;       ///< name of the folder that holds it ("": none), or of the archive where no folder does
  bool of_archive = false;  ///< `folder` is the archive's name
  std::uint64_t bytes = 0;
  std::string refusal;  ///< not empty: why it cannot be read at all
};

/// What a stream saw of one source; complete at its end, and the same on every rank.
struct Tally {
  std::uint64_t taken = 0, outside_split = 0;
  std::uint64_t archives = 0,
                loose_images = 0;  ///< archives inside that were read; images in none, going by their names
  std::map<std::string, std::uint64_t> hidden;           ///< kind -> files and folders left out
  std::map<std::string, std::set<std::string>> folders;  ///< directly inside, and what is directly inside those
  bool files_inside = false;                             ///< directly
  bool samples = false;  ///< archives hold samples of several files (x.jpg, x.cls), as webdataset's
};

/// Goes through all sources in the order given; within one by path (archives: in their own order). An archive inside a
/// source, and inside an archive that is a source or lies in a folder, is read as if it were a folder.
class CandidateStream {
 public:
  virtual ~CandidateStream() = default;
  /// The next file, without its contents. False at the end. Error(file): a source that is a broken archive.
  virtual bool next(Candidate& out) = 0;
  /// Contents of the file last returned. Returns "" or why it could not be read.
  virtual std::string read(std::vector<std::uint8_t>& out) = 0;
  /// How much of all sources is behind, 0 to 1 (an estimate).
  virtual double fraction() const = 0;
  /// One for each source.
  virtual const std::vector<Tally>& tallies() const = 0;
};

/// What the sources are: found by rank 0, known to all.
struct SourceList {
  enum class Kind : std::uint8_t { folder, archive, list };
  struct Source {
    Kind kind = Kind::folder;
    std::string given;        ///< as the caller named it
    std::string path;         ///< of the folder, the archive, or the folder that a list's relative paths begin in
    std::string files;        ///< folder and list: name, '\0', why it cannot be read (""), '\0', for each
    std::string folder;       ///< class of files that lie in the source itself
    std::uint64_t above = 0;  ///< parts at the beginning of every name that are above what is "inside" the source
  };
  std::vector<Source> sources;
};

/// Collective: rank 0 lists folders and lists, the others are told. Error(file), agreed: a source that is missing or is
/// no folder, archive, list or image.
SourceList find_sources(const std::vector<std::string>& paths, const SourceRules& rules,
                        const comm::Communicator& comm);

/// Each call starts from the beginning. The list must outlive the stream.
std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const SourceRules& rules);

/// Adds a file to Source::files.
void add_file(std::string& files, const std::string& name, const std::string& refusal = "");

/// The list of paths in a text file. Error(file).
SourceList::Source read_list(const std::string& path);

/// Lists folders: links are followed, and every folder is entered once: by its own name where it has one in any of the
/// sources, else by the first link. Files that only links lead to, and files that are sources themselves, are listed
/// once as well. Of what cannot be listed the record says why.
class FolderWalk {
 public:
  explicit FolderWalk(const SourceRules& rules) : rules_(rules) {}
  void add_folder(const std::string& path);
  /// A file that is a source. Returns "", or why it is left out: it was there before.
  std::string add_file(const std::string& path);
  /// Source::files of each folder that was added, sorted by name. Names of folders that are refused end with '/'.
  std::vector<std::string> files();

 private:
  struct Root {
    std::string path;
    std::vector<std::pair<std::string, std::string>> found;      // name, refusal
    std::vector<std::string> links, linked_files, other_splits;  // names
  };
  using Place = std::pair<std::uint64_t, std::uint64_t>;  // device and inode
  enum class Links : std::uint8_t { follow, list };
  void visit(const std::string& prefix, Links links);
  void follow(const std::string& link);
  void add_linked_file(const std::string& link);
  bool enter(const std::string& name);
  bool is_source(const std::string& path) const;
  bool is_root(const std::string& path) const;
  std::string full(const std::string& name) const { return name.empty() ? root_->path : root_->path + "/" + name; }

  const SourceRules& rules_;
  std::map<Place, std::string> entered_;  // the path by which
  std::set<std::string> real_files_;      // that are sources, or that links lead to
  std::set<std::string> source_names_;    // the last parts of those that are sources
  std::vector<Root> roots_;
  Root* root_ = nullptr;  // that is being listed
};

/// Files larger than this are refused unread: no photo is, and a compressed archive can declare anything.
inline constexpr std::uint64_t kMaxFile_bytes = std::uint64_t{1} << 28;

}  // namespace seer::data
