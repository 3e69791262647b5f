// SPDX-License-Identifier: Apache-2.0
// Copies of checkpoints on the nodes' local disks. Each rank's part is one plain file (docs/formats.md), stored on its
// node and on the next node of a ring, so losing the disk of any one node loses nothing. Local disks are faster than
// the shared file system, but are lost with the nodes: these copies supplement checkpoints and do not replace them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/nodes.hpp"

namespace seer::checkpoint {

class LocalSets {
 public:
  struct Options {
    std::string folder;  ///< checkpoint.local_dir: %h is the host's name, %n the node's number
    bool partner = true;
    bool forget = false;  ///< ignore sets that earlier starts on this run folder have written (--resume)
  };
  /// Collective. A name stored in run_dir/identity identifies this run's sets. So sets of another run, of a run that
  /// was started anew, or of the run that this folder was copied from are never mistaken for them. Writes nothing.
  LocalSets(const comm::Communicator& comm, const std::string& run_dir, const Options& options);

  /// Collective on the ranks of the constructor, on any communicator of these ranks. Writes this rank's slabs (as for
  /// checkpoint::save) and, on rank 0, the state to the disks of its node and its partner's, syncs, and deletes all but
  /// the newest two sets. On Error(file), agreed, earlier sets are untouched.
  void save(const comm::Communicator& comm, const std::vector<Slab>& slabs, const State& state) const;

  /// A set with at least one undamaged copy of every part.
  struct Found {
    std::int64_t update = 0, ranks = 0;
    std::string save;                     ///< distinguishes it from other sets of the same update
    std::vector<std::vector<int>> nodes;  ///< [rank that saved]: nodes that have a good copy of its part
  };
  /// Collective. Finds the newest set of more than `after` updates. The ranks of each node verify what is on its disk.
  /// Warns of damaged and incomplete sets.
  std::optional<Found> find(const comm::Communicator& comm, std::int64_t after = -1) const;
  /// Collective, on any number of ranks. Loads like checkpoint::load. The ranks of a part's node read it there; other
  /// ranks receive it through MPI. Error(file), agreed.
  State load(const comm::Communicator& comm, const Found& set, const std::vector<Slab>& slabs) const;
  /// Collective. To be called before the first save, once it is certain where the run starts. Makes the folders, and
  /// removes sets newer than `update`, where the run continues, and sets to forget. Error(file), agreed.
  void go_on_from(const comm::Communicator& comm, std::int64_t update) const;

  /// This rank's folder.
  const std::string& folder() const { return folder_; }
  const comm::Nodes& nodes() const { return nodes_; }
  bool partner() const { return partner_; }

 private:
  std::string set_folder(std::int64_t update) const { return folder_ + "/" + folder_name(update); }

  comm::Nodes nodes_;
  bool partner_;
  std::string run_dir_, name_;
  std::string folder_;     ///< folder of this run on this node
  std::string forgotten_;  ///< folder under the run's previous name; "" if the name is unchanged
};

}  // namespace seer::checkpoint
