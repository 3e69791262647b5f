// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/nodes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "record.hpp"
#include "seer/base/error.hpp"

namespace seer::comm {
namespace {

constexpr int kTag = 4711;

/// Returns SEER_RANKS_PER_NODE, or 0 if it is not set.
int simulated_ranks() {
  const char* text = std::getenv("SEER_RANKS_PER_NODE");
  if (text == nullptr) return 0;
  int ranks = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, ranks);
  if (error == std::errc() && stop == end && ranks > 0) return ranks;
  throw Error(ExitCode::input, fmt::format("SEER_RANKS_PER_NODE is \"{}\", wanted a number of ranks", text),
              "unset it, except to let several nodes be played on one machine");
}

}  // namespace

Nodes::Nodes(const Communicator& comm) {
  int simulated = 0;
  agree(comm, "finding the nodes", [&] { simulated = simulated_ranks(); });
  std::int64_t first = comm.rank();
  if (simulated > 0) {
    first -= first % simulated;
  } else {
    first = comm.node().all_reduce(first, Op::min);
  }
  const auto firsts = comm.all_gather(first);
  std::vector<std::int64_t> distinct;  // the first rank of each node, ascending
  for (int rank = 0; rank < comm.size(); ++rank) {
    if (firsts[static_cast<std::size_t>(rank)] == rank) distinct.push_back(rank);
  }
  ranks_.resize(distinct.size());
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto at = std::lower_bound(distinct.begin(), distinct.end(), firsts[static_cast<std::size_t>(rank)]);
    node_of_.push_back(static_cast<int>(at - distinct.begin()));
    ranks_[static_cast<std::size_t>(node_of_.back())].push_back(rank);
  }
}

int Nodes::place_of(int rank) const {
  const auto& ranks = ranks_of(node_of(rank));
  return static_cast<int>(std::lower_bound(ranks.begin(), ranks.end(), rank) - ranks.begin());
}

int Nodes::partner_of(int rank) const {
  if (count() == 1) return rank;
  const auto& next = ranks_of((node_of(rank) + 1) % count());
  return next[static_cast<std::size_t>(place_of(rank)) % next.size()];
}

void exchange(const Communicator& comm, std::span<const Outgoing> out, std::span<const Incoming> in) {
  std::vector<MPI_Request> requests;
  for (const auto& [from, bytes] : in) {
    ensure(bytes.size() <= INT_MAX, "a message of more bytes than MPI 3 can count");
    check(MPI_Irecv(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, from, kTag, comm.mpi(),
                    &requests.emplace_back()),
          "MPI_Irecv");
  }
  for (const auto& [to, bytes] : out) {
    ensure(bytes.size() <= INT_MAX, "a message of more bytes than MPI 3 can count");
    check(MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, kTag, comm.mpi(),
                    &requests.emplace_back()),
          "MPI_Isend");
  }
  check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
}

}  // namespace seer::comm
