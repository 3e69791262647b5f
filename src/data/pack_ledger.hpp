// SPDX-License-Identifier: Apache-2.0
// What the first pass of pack found out about the images, their classes, and which of them go into the shards. Private
// to pack*.cpp.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pack_parts.hpp"
#include "packed.hpp"

namespace seer::data {

/// An image that was accepted.
struct Accepted {
  std::uint64_t index = 0;  ///< index among the candidates
  std::uint64_t bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  std::int32_t label = -1;  ///< its class; where images may have several, its path in the label file; -1: none
  bool of_archive = false;  ///< the class is the archive's name
};

/// The result of verifying one candidate, sent to all ranks.
struct Verdict {
  std::uint64_t index = 0, bytes = 0, checksum = 0;
  std::uint32_t width = 0, height = 0;
  bool of_archive = false;  ///< the class is the archive's name
  std::string class_name, path, reason;
};
void fields(Packed& bytes, Verdict& v);

/// Names an image by its bytes.
struct Content {
  std::uint64_t checksum = 0, bytes = 0;
  auto operator<=>(const Content&) const = default;
};

/// The results of the first pass; equal on all ranks, except `rejects`, which only rank 0 has.
struct Ledger {
  const Assignment& assignment;
  std::vector<Accepted> accepted = {};
  std::vector<Reject> rejects = {};
  PackResult result = {};                                            // what is known of it
  std::map<std::pair<std::string, bool>, std::int32_t> labels = {};  // class, and whether an archive gave it
  std::set<Content> seen = {};                                       // images that would be duplicates

  /// Takes the verdicts that all ranks have written.
  void add(const std::vector<std::string>& parts, bool reject_duplicates, bool keep_rejects);
  /// Gives the images their final labels. The names of folders are sorted, unless a file fixes them. Images without a
  /// folder have no class. If `archives_are_classes` is false, neither have images whose class is the name of an
  /// archive. Error(file) for a folder that is none of the fixed classes.
  void number_classes(bool archives_are_classes, const std::string& classes_file);
  /// What the shard records of an image.
  ShardEntry entry(const Accepted& a) const;
  /// The classes of the accepted images.
  Targets classes() const;
  /// Leaves only the images that the choice takes. Error(input).
  void choose(const SubsetChoice& choice);
  /// Counts what is left. `warns`: warns of classes that nothing can be learnt about.
  void complete(bool warns);
};

}  // namespace seer::data
