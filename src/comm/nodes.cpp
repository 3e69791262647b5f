// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/nodes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>

#include "record.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/launcher.hpp"

namespace seer::comm {
namespace {

constexpr int kTag = 4711;

/// Returns SEER_RANKS_PER_NODE, or 0 if it is not set.
int simulated_ranks() {
  const char* text = std::getenv("SEER_RANKS_PER_NODE");
  if (text == nullptr) return 0;
  if (const int ranks = number(text); ranks > 0) return ranks;
  throw Error(ExitCode::input, fmt::format("SEER_RANKS_PER_NODE is \"{}\"; it must be a positive number", text),
              "unset it; it only serves to simulate several nodes on one machine");
}

}  // namespace

Nodes::Nodes(const Communicator& comm) {
  int simulated = 0;
  agree(comm, "finding the nodes", [&] { simulated = simulated_ranks(); });
  const std::int64_t me = comm.rank();
  const auto first = simulated > 0 ? me - me % simulated : comm.node().all_reduce(me, Op::min);
  std::map<std::int64_t, int> nodes;  // by first rank
  for (const auto first_of_rank : comm.all_gather(first)) {
    const auto node = nodes.try_emplace(first_of_rank, count()).first->second;
    if (node == count()) ranks_.emplace_back();
    ranks_[static_cast<std::size_t>(node)].push_back(static_cast<int>(node_of_.size()));
    node_of_.push_back(node);
  }
}

int Nodes::partner_of(int rank) const {
  if (count() == 1) return rank;
  const auto& here = ranks_of(node_of(rank));
  const auto place = static_cast<std::size_t>(std::ranges::lower_bound(here, rank) - here.begin());
  const auto& next = ranks_of((node_of(rank) + 1) % count());
  return next[place % next.size()];
}

void exchange(const Communicator& comm, std::span<const Outgoing> out, std::span<const Incoming> in) {
  std::vector<MPI_Request> requests;
  const auto start = [&](const auto& call, auto bytes, int rank, const char* name) {
    ensure(bytes.size() <= INT_MAX, "a message of more bytes than MPI 3 can count");
    const auto count = static_cast<int>(bytes.size());
    check(call(bytes.data(), count, MPI_BYTE, rank, kTag, comm.mpi(), &requests.emplace_back()), name);
  };
  for (const auto& [from, bytes] : in) start(MPI_Irecv, bytes, from, "MPI_Irecv");
  for (const auto& [to, bytes] : out) start(MPI_Isend, bytes, to, "MPI_Isend");
  check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
}

}  // namespace seer::comm
