// SPDX-License-Identifier: Apache-2.0
// The folder that pack writes into: names, leftovers of earlier calls, refusals. Private to pack*.cpp and synth.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/data/pack.hpp"
#include "shard_set.hpp"

namespace seer::data {

struct Reject {
  std::string path, reason;  ///< reason: "kind: details"
  std::uint64_t bytes = 0;
};

/// The shards of one name in a folder, before and after. Rank 0 alone has one.
class SetOutput {
 public:
  /// Makes the folder, tries that it can be written to, and removes temporaries that an interrupted call left. `alone`:
  /// a communicator of one rank. Error(input) for what Existing::refuse refuses, and while another process writes
  /// shards of this name there; Error(file).
  SetOutput(const std::string& folder, const std::string& name, Existing existing, const comm::Communicator& alone);

  /// The files that stay (Existing::append).
  const std::vector<Manifest::File>& kept() const { return kept_; }
  std::uint64_t images() const;
  /// Of the first new shard.
  std::size_t first_number() const { return first_number_; }
  /// Before the first shard is given its name: says that the set is incomplete, and removes what does not stay.
  void begin_naming() const;
  /// When all have their names: the new ones are of `set` and have these numbers of images. Now the set is complete.
  void end_naming(const std::string& set, const std::vector<std::uint64_t>& images) const;

 private:
  /// Held by one process at a time; the file goes when it is given up.
  class Lock {
   public:
    Lock(const std::string& folder, const std::string& name);
    ~Lock();
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

   private:
    std::string path_;
    int file_ = -1;
  };
  std::string folder_, name_;
  std::optional<Lock> lock_;
  std::vector<Manifest::File> kept_;
  std::size_t first_number_ = 0;
};

/// <folder>/rejects.jsonl: one object a refused file; lines of other names (splits) are kept, with append all are.
void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects,
                   Existing existing);
/// Error(file) if the file system has fewer free bytes.
void want_room(const std::string& folder, std::uint64_t bytes);

}  // namespace seer::data
