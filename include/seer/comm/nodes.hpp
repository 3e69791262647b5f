// SPDX-License-Identifier: Apache-2.0
// Which ranks share a node, and messages between two ranks.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::comm {

/// Nodes are numbered in the order of their first ranks. On one machine, SEER_RANKS_PER_NODE = n makes every n
/// consecutive ranks count as a node, to rehearse the loss of a node.
class Nodes {
 public:
  /// Collective. Throws Error(input), agreed, if SEER_RANKS_PER_NODE is not a positive number.
  explicit Nodes(const Communicator& comm);

  int count() const { return static_cast<int>(ranks_.size()); }
  int node_of(int rank) const { return node_of_[static_cast<std::size_t>(rank)]; }
  /// Ascending.
  const std::vector<int>& ranks_of(int node) const { return ranks_[static_cast<std::size_t>(node)]; }
  int leader_of(int node) const { return ranks_of(node).front(); }
  /// The rank in the next node of the ring that keeps a copy of this rank's data; the rank itself if there is one node.
  int partner_of(int rank) const;

 private:
  std::vector<int> node_of_;
  std::vector<std::vector<int>> ranks_;
};

struct Outgoing {
  int to;
  std::span<const std::byte> bytes;
};
struct Incoming {
  int from;
  std::span<std::byte> bytes;
};
/// Exchanges messages between pairs of ranks, all at the same time, at most INT_MAX bytes each. Returns when this
/// rank's messages are complete. Both sides of a pair list them in the same order and with the same sizes.
void exchange(const Communicator& comm, std::span<const Outgoing> out, std::span<const Incoming> in);

}  // namespace seer::comm
