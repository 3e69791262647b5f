// SPDX-License-Identifier: Apache-2.0
// The output folder of pack: names, leftovers of earlier calls, rejects. Private to pack*.cpp and synth.cpp.
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

/// The shards of one name in a folder, before and after the call. Only rank 0 has one.
class SetOutput {
 public:
  /// Makes the folder, checks that it is writable, and removes temporary files that an interrupted call left. `alone`:
  /// a communicator of one rank. Error(input) if there are shards and `existing` is refuse, or while another process
  /// writes shards of this name there; Error(file).
  SetOutput(const std::string& folder, const std::string& name, Existing existing, const comm::Communicator& alone);

  /// The files to keep (Existing::append).
  const std::vector<Manifest::File>& kept() const { return kept_; }
  std::uint64_t images() const;
  /// Number of the first new shard.
  std::size_t first_number() const { return first_number_; }
  /// To be called before the first shard gets its name. Marks the set as incomplete and removes shards not to be kept.
  void begin_naming() const;
  /// To be called when all shards have their names. Records that the new ones belong to `set` and have these numbers of
  /// images, and marks the set as complete.
  void end_naming(const std::string& set, const std::vector<std::uint64_t>& images) const;

 private:
  /// A lock that one process at a time can hold. Its file is removed when the lock is released.
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

/// Writes <folder>/rejects.jsonl: one object per rejected file. Keeps the lines of other names (splits), and with
/// append all lines.
void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects,
                   Existing existing);
/// Error(file) if the file system has fewer than `bytes` bytes free.
void want_room(const std::string& folder, std::uint64_t bytes);

}  // namespace seer::data
