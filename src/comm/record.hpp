// SPDX-License-Identifier: Apache-2.0
// Private to src/comm: the state of a communicator, and the check of MPI's return codes.
#pragma once

#include <array>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/comm/ring.hpp"

namespace seer::comm {

struct Communicator::Record {
  struct Count {
    std::int64_t calls = 0, bytes = 0;
  };
  ~Record() {
    if (trace != nullptr) release(trace);
  }
  std::string name;
  Trace* trace = nullptr;           ///< null for a planned communicator or a single rank
  std::array<Count, 5> kinds{};     ///< by Kind
  std::vector<std::byte> staging;   ///< grows to the largest round, and stays
  std::vector<int> counts, places;  ///< elements of every rank in a round, and where they begin
  // Planned:
  device::Ledger* ledger = nullptr;
  int node_ranks = 1;               ///< ranks on one node
  std::size_t planned_staging = 0;  ///< bytes
};

/// Throws Error(device) with MPI's own message unless `status` is MPI_SUCCESS.
void check(int status, const char* call, std::source_location where = std::source_location::current());

}  // namespace seer::comm
