// SPDX-License-Identifier: Apache-2.0
// Private to src/comm: the state of a communicator, and the checks of MPI's return codes and of pointers for MPI.
#pragma once

#include <array>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"

namespace seer::comm {

struct Communicator::Record {
  struct Count {
    std::int64_t calls = 0, bytes = 0;
  };
  ~Record();
  MPI_Comm comm = MPI_COMM_NULL;
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

/// MPI gets host memory only; device memory is sent over NCCL (block_communicator.hpp). An MPI that supports devices
/// would silently stage a device pointer through the host; any other would crash. Throws Error(internal) for device
/// memory, in debug builds.
#if defined(SEER_CUDA) && !defined(NDEBUG)
void expect_host(const void* data);
#else
inline void expect_host(const void*) {}
#endif

/// The name of a kind of collective, as users see it.
const char* name_of(device::Message::Kind kind);

/// Throws Error(device) with MPI's own message unless `status` is MPI_SUCCESS.
void check(int status, const char* call, std::source_location where = std::source_location::current());

}  // namespace seer::comm
