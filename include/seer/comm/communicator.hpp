// SPDX-License-Identifier: Apache-2.0
// Ranks and collectives over MPI. Every MPI call is checked; a failure is Error(device).
// All collectives are blocking and must be entered by every rank of the communicator in the same order.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/base/dtype.hpp"
#include "seer/device/ledger.hpp"

namespace seer::comm {

/// Calls MPI_Init_thread and MPI_Finalize. Created once, by main or by the test main.
class MpiSession {
 public:
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

enum class Op { sum, max, min };
class Mark;

/// Number of calls and bytes of one kind of collective on one communicator.
struct Traffic {
  std::string name;    ///< the communicator's name
  const char* kind;    ///< all_reduce, reduce_scatter, all_gather, broadcast or barrier
  int group_size = 1;  ///< ranks
  std::int64_t calls = 0;
  /// Payload, summed over calls: bytes of the buffer that is reduced or broadcast, or of all gathered parts, in the
  /// type that is sent. What MPI actually sends depends on its algorithm: about twice this per rank in a ring
  /// all-reduce.
  std::int64_t bytes = 0;
};

/// A handle: copies are the same communicator, with the same messages and counters. The last one frees its MPI_Comm
/// (world: a duplicate), and must not outlive the MpiSession.
class Communicator {
 public:
  static Communicator world();
  /// Rank 0 of a planned world: collectives record in the ledger and leave their buffers unchanged. `ledger` must
  /// outlive this communicator and all that are made from it.
  static Communicator planned(int ranks, int ranks_per_node, device::Ledger& ledger);
  Communicator() = default;  ///< unusable until assigned

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  MPI_Comm mpi() const { return comm_; }
  /// The ledger of a planned communicator, else null.
  device::Ledger* ledger() const;

  /// Sets the name shown in traffic(). The default is "world" for the world, else "part".
  Communicator named(std::string name) &&;
  /// Counts since construction, only for kinds that happened. Each call of a function here counts once, however many
  /// messages MPI makes of it. A communicator of one rank sends nothing and counts nothing. Call it while no collective
  /// is in progress.
  std::vector<Traffic> traffic() const;
  /// Size of the staging memory.
  std::int64_t staging_bytes() const;

  /// Ranks of equal `color` form a communicator, ordered by rank.
  Communicator split(int color) const;
  /// Groups of `group_size` consecutive ranks; Error(input) if it does not divide size().
  Communicator split_groups(int group_size) const;
  /// The ranks with the same position in their groups of `group_size` consecutive ranks; Error(input) as above.
  Communicator split_across(int group_size) const;
  /// The same ranks, with separate messages.
  Communicator duplicate() const;
  /// The ranks that share this one's node.
  Communicator node() const;

  void barrier() const;
  void all_reduce(std::span<float> values, Op op = Op::sum) const;
  void all_reduce(std::span<double> values, Op op = Op::sum) const;
  void all_reduce(std::span<std::int64_t> values, Op op = Op::sum) const;
  double all_reduce(double value, Op op) const {
    all_reduce(std::span(&value, 1), op);
    return value;
  }
  std::int64_t all_reduce(std::int64_t value, Op op) const {
    all_reduce(std::span(&value, 1), op);
    return value;
  }
  void broadcast(void* data, std::size_t bytes, int root = 0) const;
  void broadcast(std::string& text, int root = 0) const;
  /// Byte strings of every rank, by rank, on every rank.
  std::vector<std::string> all_gather(const std::string& mine) const;
  /// Equal counts: out holds size() * mine.size() values, by rank.
  void all_gather(std::span<const float> mine, std::span<float> out) const;
  std::vector<std::int64_t> all_gather(std::int64_t mine) const;

  // Collectives on flat blocks. `wire` is the type that is sent: f32, or bf16 or f16. With 16 bits, every value is
  // rounded to nearest even before it is sent, and so is the sum of every two (taken in float). Data is staged in
  // rounds of at most about kStagingBytes, whatever the size of the message, so that MPI's own copies stay as small.
  // The communicator owns the staging memory and allocates it at the first such call. Messages may have any size.
  static constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

  /// Sum over ranks, on every rank. Staged only for 16 bits.
  void sum(std::span<float> values, DType wire, std::size_t staging_bytes = kStagingBytes) const;
  /// Cuts `whole` into parts as balanced_begin() says. Afterwards part r of rank r's `whole` is the sum over ranks; its
  /// other parts are unspecified. Always staged.
  void reduce_scatter_parts(std::span<float> whole, DType wire = DType::f32,
                            std::size_t staging_bytes = kStagingBytes) const;
  /// Sends part r of rank r's `whole` to all ranks. Staged only above `most_elems`, the most that MPI 3 can count in
  /// one message.
  void all_gather_parts(std::span<float> whole, std::size_t most_elems = INT_MAX,
                        std::size_t staging_bytes = kStagingBytes) const;

 private:
  friend class BlockCommunicator;  // shares the counters and the record, but sends over NCCL
  using Kind = device::Message::Kind;
  struct Record;  // name, counters, staging memory; const calls may change it

  explicit Communicator(MPI_Comm comm, std::string name = "part");
  /// Counts the collective. True if it is planned: nothing is sent.
  [[nodiscard]] bool only_plans(Kind kind, std::size_t bytes) const;
  /// Counts the collective, and marks this rank as inside it while the result exists; nothing if it is planned.
  [[nodiscard]] std::optional<Mark> enter(Kind kind, std::size_t bytes) const;
  template <class T>
  void all_reduce_pieces(std::span<T> values, MPI_Datatype type, Op op) const;
  Communicator planned_part(int size, int node_ranks) const;
  void* staging(std::size_t bytes) const;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  std::shared_ptr<Record> record_;
};

/// First element of part `part` if `count` elements are cut into `parts` parts that differ by one element at most.
inline std::int64_t balanced_begin(std::int64_t count, int part, int parts) {
  return count / parts * part + std::min<std::int64_t>(count % parts, part);
}

/// For set-up phases. Runs `phase` on every rank. If it throws on any rank, every rank throws the same Error: that of
/// the lowest failing rank, with "n of m ranks failed" unless all did. `phase` must not contain a collective.
void agree(const Communicator& comm, const std::string& name, const std::function<void()>& phase);

/// Sets the run folder, where die() and leave_trace_of() write.
void leave_traces_in(const std::string& run_dir);
/// Removes the traces of earlier starts, of all ranks.
void forget_old_traces(const std::string& run_dir);

/// For the step loop. Prints one line, writes error.<rank>.txt with the stack, and ends all ranks with this exit code.
/// An alarm ends the process if aborting hangs.
[[noreturn]] void die(const std::string& message, int exit_code);

}  // namespace seer::comm
