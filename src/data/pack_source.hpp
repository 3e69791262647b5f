// SPDX-License-Identifier: Apache-2.0
// The files that pack is to look at, one after another: folders, archives, lists. Private to pack*.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// One candidate file. The same sequence on every rank.
struct Candidate {
  std::string path;    ///< for messages: as reachable from where the command was called, or archive:entry
  std::string name;    ///< within its source: stored in the shard
  std::string folder;  ///< name of the folder that holds it ("": none)
  std::uint64_t bytes = 0;
  std::string refusal;  ///< not empty: why it cannot be read at all
};

/// Goes through all sources in the order given; within one by path (archives: in their own order).
class CandidateStream {
 public:
  virtual ~CandidateStream() = default;
  /// The next file, without its contents. False at the end. Error(file) for a broken archive or unreadable source.
  virtual bool next(Candidate& out) = 0;
  /// Contents of the file last returned. Returns "" or why it could not be read.
  virtual std::string read(std::vector<std::uint8_t>& out) = 0;
  /// How much of all sources is behind, 0 to 1 (an estimate).
  virtual double fraction() const = 0;
};

/// What the sources are: found by rank 0, known to all. `paths` of folders' files are one string, zero-separated.
struct SourceList {
  enum class Kind : std::uint8_t { folder, archive, list };
  struct Source {
    Kind kind;
    std::string path;
    std::string files;  ///< folder and list: names, each followed by '\0'; a leading '\1' marks one that cannot be read
  };
  std::vector<Source> sources;
};

/// Collective: rank 0 lists folders and lists, the others are told. Error(file), agreed: a source that is missing or is
/// no folder, archive, list or image.
SourceList find_sources(const std::vector<std::string>& paths, const comm::Communicator& comm);

/// Candidates of which a path component equals `split` ("": all). Each call starts from the beginning.
std::unique_ptr<CandidateStream> open_stream(const SourceList& sources, const std::string& split);

/// Files larger than this are refused unread: no photo is, and a compressed archive can declare anything.
inline constexpr std::uint64_t kMaxFile_bytes = std::uint64_t{1} << 28;

}  // namespace seer::data
