// SPDX-License-Identifier: Apache-2.0
// Finds the files for pack, one after another, in folders, archives and lists. Private to pack*.cpp.
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

/// Which files of the sources to take.
struct SourceRules {
  std::string split;    ///< only files below the folder (or in the archive) of this name directly inside a source
  bool hidden = false;  ///< also hidden files (hidden_kind)
};

/// One candidate file. All ranks see the same sequence. Names are bytes as stored in the file system or the archive.
struct Candidate {
  std::string path;         ///< for messages: path from the working directory, or archive:entry
  std::string name;         ///< within its source
  std::string folder;       ///< name of the folder that holds it, else of the archive; "": none
  bool of_archive = false;  ///< `folder` is the archive's name
  std::uint64_t bytes = 0;
  std::string refusal;  ///< if not empty: why it cannot be read
};

/// Counts for one source, gathered by a stream. Complete at the stream's end, and the same on every rank.
struct Tally {
  std::uint64_t taken = 0, outside_split = 0;
  std::uint64_t archives = 0,
                loose_images = 0;  ///< archives read inside the source; images (by name) outside any archive
  std::map<std::string, std::uint64_t> hidden;           ///< kind -> files and folders left out
  std::map<std::string, std::set<std::string>> folders;  ///< folders directly inside, and the names inside each
  bool files_inside = false;                             ///< there are files directly inside
  bool samples = false;  ///< archives hold samples of several files each (x.jpg, x.cls), as in webdataset
};

/// Goes through all sources in the given order, and within a source by path (archives: in their own order). An archive
/// inside a source is read like a folder, and so is an archive inside an archive that is a source or lies in a folder.
class CandidateStream {
 public:
  virtual ~CandidateStream() = default;
  /// Returns the next file, without its contents; false at the end. Error(file) if a source is a broken archive.
  virtual bool next(Candidate& out) = 0;
  /// Reads the contents of the file returned last. Returns "", or why the file could not be read.
  virtual std::string read(std::vector<std::uint8_t>& out) = 0;
  /// Fraction of all sources already processed, 0 to 1 (an estimate).
  virtual double fraction() const = 0;
  /// One tally per source.
  virtual const std::vector<Tally>& tallies() const = 0;
};

/// The sources, found by rank 0 and shared with all ranks.
struct SourceList {
  enum class Kind : std::uint8_t { folder, archive, list };
  struct Source {
    Kind kind = Kind::folder;
    std::string given;        ///< as the caller named it
    std::string path;         ///< the folder, the archive, or the base folder of a list's relative paths
    std::string files;        ///< folder and list: for each file name, '\0', why it cannot be read (""), '\0'
    std::string folder;       ///< class of files that lie in the source itself
    std::uint64_t above = 0;  ///< leading parts of every name that are not "inside" the source
  };
  std::vector<Source> sources;
};

/// Collective. Rank 0 reads folders and lists and shares the result. Error(file), agreed, if a source is missing or is
/// not a folder, archive, list or image.
SourceList find_sources(const std::vector<std::string>& paths, const SourceRules& rules,
                        const comm::Communicator& comm);

/// Opens a stream that starts at the first file. `sources` and `rules` must outlive the stream.
std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const SourceRules& rules);

/// Adds a file to Source::files.
void add_file(std::string& files, const std::string& name, const std::string& refusal = "");

/// Reads a text file with a list of paths. Error(file).
SourceList::Source read_list(const std::string& path);

/// Lists folders and follows links. Enters every folder once: by its own name if it has one in any of the sources, else
/// by the first link. Also lists files that are reachable only by links, and files that are sources themselves, once.
/// If something cannot be listed, its record says why.
class FolderWalk {
 public:
  explicit FolderWalk(const SourceRules& rules) : rules_(rules) {}
  void add_folder(const std::string& path);
  /// Adds a file that is a source. Returns "", or why it is left out: the file was already added.
  std::string add_file(const std::string& path);
  /// Source::files of each added folder, sorted by name. Names of refused folders end with '/'.
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
  std::map<Place, std::string> entered_;  // folder -> path by which it was entered
  std::set<std::string> real_files_;      // real paths of files that are sources or targets of links
  std::set<std::string> source_names_;    // file names of those that are sources
  std::vector<Root> roots_;
  Root* root_ = nullptr;  // the one being listed
};

/// Larger files are refused unread: no photo is so large, and a compressed archive can declare any size.
inline constexpr std::uint64_t kMaxFile_bytes = std::uint64_t{1} << 28;

}  // namespace seer::data
