// SPDX-License-Identifier: Apache-2.0
// Copies of checkpoints on the nodes' own disks: every rank's part as one plain file (docs/formats.md), on its node and
// on the next one in a ring, so that losing any one node's disk loses nothing. Quicker than the shared file system, and
// gone with the nodes: they come beside checkpoints, not instead of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/nodes.hpp"

namespace seer::checkpoint {

class LocalSets {
 public:
  struct Options {
    std::string folder;  ///< checkpoint.local_dir: %h is the host's name, %n the node's number
    bool partner = true;
    bool forget = false;  ///< sets of earlier starts on this run folder are not this run's (--resume)
  };
  /// Collective. Sets are known by a name kept in run_dir/identity, so that those of another run, of one that was begun
  /// anew, or of the run that this folder was copied from, are never taken for this run's. Changes nothing yet.
  LocalSets(const comm::Communicator& comm, const std::string& run_dir, const Options& options);

  /// Collective on the ranks of the constructor, on any communicator of theirs: writes this rank's slabs (as for
  /// checkpoint::save) and, on rank 0, the state, to its node and to its partner's, syncs, and drops all but the newest
  /// two sets. Error(file), agreed: earlier sets are untouched.
  void save(const comm::Communicator& comm, const std::vector<Slab>& slabs, const State& state) const;

  /// A set of which every part is there with all its bytes right.
  struct Found {
    std::int64_t update = 0, ranks = 0;
    std::string save;                     ///< what tells it from another of that update
    std::vector<std::vector<int>> nodes;  ///< [rank that saved]: nodes that have a good copy of its part
  };
  /// Collective: the newest, of more than `after` updates; each node's ranks verify what is on its disk. Damaged and
  /// incomplete sets are named in a warning.
  std::optional<Found> find(const comm::Communicator& comm, std::int64_t after = -1) const;
  /// Collective, on any number of ranks: as checkpoint::load. Parts that are on the rank's own node are read there,
  /// others come by MPI. Error(file), agreed.
  State load(const comm::Communicator& comm, const Found& set, const std::vector<Slab>& slabs) const;
  /// Collective, before the first save, once the start is certain: makes the folders, and removes what is newer than
  /// the update that the run goes on from, or was to be forgotten. Error(file), agreed.
  void go_on_from(const comm::Communicator& comm, std::int64_t update) const;

  /// This rank's folder.
  const std::string& folder() const { return folder_; }
  const comm::Nodes& nodes() const { return nodes_; }
  bool partner() const { return partner_; }

 private:
  comm::Nodes nodes_;
  bool partner_;
  std::string run_dir_, name_;
  std::string folder_;     ///< of this run on this node
  std::string forgotten_;  ///< the same under its name before, "" if it keeps that
};

}  // namespace seer::checkpoint
