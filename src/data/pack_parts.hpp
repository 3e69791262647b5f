// SPDX-License-Identifier: Apache-2.0
// The parts of pack. Finds the files, one after another, in folders, archives and lists; reads archives; tells what the
// names of files and folders mean. The output folder: names, leftovers of earlier calls, rejects; and the progress on
// the terminal. Private to pack*.cpp, synth.cpp and shard_set.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/data/pack.hpp"
#include "shard_set.hpp"

struct archive;
struct archive_entry;

namespace seer::data {

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

/// What the user named as a source.
struct Source {
  enum class Kind : std::uint8_t { folder, archive, list };
  Kind kind = Kind::folder;
  std::string given;        ///< as the caller named it
  std::string path;         ///< the folder, the archive, or the base folder of a list's relative paths
  std::string files;        ///< folder and list: for each file name, '\0', why it cannot be read (""), '\0'
  std::string folder;       ///< class of files that lie in the source itself
  std::uint64_t above = 0;  ///< leading parts of every name that are not "inside" the source
};
/// The sources, found by rank 0 and shared with all ranks.
using SourceList = std::vector<Source>;

/// Collective. Rank 0 reads folders and lists and shares the result. Error(file), agreed, if a source is missing or is
/// not a folder, archive, list or image.
SourceList find_sources(const PackOptions& options, const comm::Communicator& comm);

/// Opens a stream that starts at the first file. `sources` and `options` must outlive the stream.
std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const PackOptions& options);

/// What the label file, the file of classes and the list say about the candidates.
struct Assignment {
  static constexpr std::int32_t kNoLabel = -1, kLeftOut = -2;

  bool of_file = false;               ///< there is a label file
  bool several = false;               ///< its images may have several classes, or none
  std::vector<std::string> classes;   ///< of the label file or of the file of classes; empty: those of the folders
  Targets targets, ignored;           ///< classes of each path of the label file; `ignored` is empty if there are none
  std::vector<std::int32_t> records;  ///< of each candidate: its path, kNoLabel or kLeftOut; empty: kNoLabel for all
  std::uint64_t off_list = 0, without_label = 0;  ///< candidates left out

  std::int32_t record(std::uint64_t candidate) const {
    return candidate < records.size() ? records[candidate] : kNoLabel;
  }
};

/// Collective. Rank 0 reads the files, goes through the candidates without reading these, and shares the result.
/// Error(file), agreed: a malformed file, a path that is not in the sources or means several files, an image without a
/// label (all unless the options allow it).
Assignment assign_labels(const SourceList& sources, const PackOptions& options, const comm::Communicator& comm);

/// Checks an image by decoding it. Returns "" and its sides and checksum, or "kind: details".
std::string verify(const std::vector<std::uint8_t>& bytes, const PackOptions& options, Image& scratch, ShardEntry& out);

/// Reading the archive cannot continue. The text is libarchive's reason; it may differ between ranks that read an entry
/// and ranks that skip it.
class BrokenArchive : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Reads one tar archive once, from its start: a file, or an entry of another archive.
class ArchiveReader {
 public:
  /// BrokenArchive if the file cannot be opened or is not a tar archive.
  explicit ArchiveReader(const std::string& path);
  /// Reads the entry that `outer` returned last, decompressing as it goes. `outer` must stay at this entry and at the
  /// same address while this reader is in use.
  explicit ArchiveReader(ArchiveReader& outer);
  ~ArchiveReader();

  /// Returns the next entry that is not a folder: its name without a leading ./ or /, the bytes that it declares, and a
  /// refusal if it is not a regular file; false at the end. BrokenArchive.
  bool next(Candidate& out);
  /// Reads the next bytes of that entry, with zeros for holes of sparse files. Returns fewer than requested only at the
  /// end of the entry. BrokenArchive.
  std::size_t read(std::span<std::uint8_t> to);
  std::uint64_t entries() const { return entries_; }
  /// Fraction of the file already read, 0 to 1.
  double fraction() const;

 private:
  struct Input;
  explicit ArchiveReader(std::unique_ptr<Input> input);
  void check(int status) const;

  std::unique_ptr<Input> input_;
  std::unique_ptr<archive, void (*)(archive*)> archive_;
  archive_entry* entry_ = nullptr;
  std::uint64_t entries_ = 0;
  // The entry's size, how far it was read, and the last block from libarchive with its position.
  std::uint64_t bytes_ = 0, at_ = 0, block_at_ = 0, block_bytes_ = 0;
  const std::uint8_t* block_ = nullptr;
};

/// "a/./b//c" gives a, b, c. The first part of an absolute path is "/".
std::vector<std::string_view> parts_of(std::string_view path);
/// "n01.tar.gz" (with or without folders before it) gives "n01"; "" if the name is not that of an archive.
std::string_view archive_stem(std::string_view name);
/// If not empty, a file or folder of this name counts as hidden and is left out by default. The text is the kind under
/// which it is counted.
std::string hidden_kind(std::string_view part);
/// True for .jpg, .jpeg, .png or .webp, in upper or lower case.
bool is_image_name(std::string_view name);
/// True for train, test, val and similar names, in upper or lower case.
bool is_split_name(std::string_view folder);

struct Reject {
  std::string path, reason;  ///< reason: "kind: details"
  std::uint64_t bytes = 0;
};

/// Speed and remaining time, for lines of progress. Shows few: on a terminal, one line per file would take longer than
/// the files themselves.
class Progress {
 public:
  /// Whether 0.2 s have passed since this was true before.
  bool due() {
    if (since_shown_.ms() < 200) return false;
    since_shown_.restart();
    return true;
  }
  double per_second(std::uint64_t images) const {
    return static_cast<double>(images) / std::max(1e-3, clock_.seconds());
  }
  /// ", 1:05 left"; "" while little is done. `done`: fraction of the work.
  std::string left(double done) const;

 private:
  Clock clock_, since_shown_;
};

/// The shards of one name in a folder, before and after the call. Only rank 0 has one.
class SetOutput {
 public:
  /// Makes the folder, checks that it is writable, and removes temporary files that an interrupted call left. `alone`:
  /// a communicator of one rank. Error(input) if there are shards and `existing` is refuse, or while another process
  /// writes shards of this name there; Error(file).
  SetOutput(const std::string& folder, const std::string& name, Existing existing, const comm::Communicator& alone);

  /// The files to keep (Existing::append).
  const std::vector<Manifest::File>& kept() const { return kept_; }
  /// Number of the first new shard.
  std::size_t first_number() const { return first_number_; }
  /// To be called before the first shard gets its name. Marks the set as incomplete and removes shards not to be kept.
  void begin_naming() const;
  /// To be called when all shards have their names. Records that the new ones belong to `set` and have these numbers of
  /// images, and marks the set as complete.
  void end_naming(const std::string& set, const std::vector<std::uint64_t>& images) const;

 private:
  std::string folder_, name_;
  std::shared_ptr<void> lock_;  // one process at a time holds it, until the object's end
  std::vector<Manifest::File> kept_;
  std::size_t first_number_ = 0;
};

/// Writes <folder>/rejects.jsonl: one object per rejected file. Keeps the lines of other names (splits), and with
/// append all lines.
void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects,
                   Existing existing);
/// Error(file) if the file system has fewer than `bytes` bytes free.
void want_room(const std::string& folder, std::uint64_t bytes);

/// The files that pack skipped, and the messages about them.
struct LeftOut {
  std::map<std::string, std::uint64_t> counts;  ///< for the summary
  std::vector<Reject> lines;                    ///< for rejects.jsonl: one per source and kind
  std::vector<std::string> warnings;
  std::string nothing, remedy;  ///< the error message and remedy if no file is left
  std::uint64_t archives = 0;
  bool samples = false;  ///< the archives are parts of a data set, not classes
};

LeftOut judge(const SourceList& sources, const PackOptions& options, const std::vector<Tally>& tallies);

}  // namespace seer::data
