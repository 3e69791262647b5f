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
#include <span>
#include <string>
#include <vector>

#include "seer/base/dtype.hpp"
#include "seer/device/ledger.hpp"

namespace seer::comm {

/// MPI_Init_thread and MPI_Finalize; made once by main and by the test main.
class MpiSession {
 public:
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

enum class Op { sum, max, min };

/// How often a communicator was used for one kind of collective, and for how much.
struct Traffic {
  std::string name;    ///< the communicator's
  const char* kind;    ///< all_reduce, reduce_scatter, all_gather, broadcast or barrier
  int group_size = 1;  ///< ranks
  std::int64_t calls = 0;
  /// Payload: bytes of the buffer that is reduced or broadcast, or of all parts gathered, each time, in the type that
  /// travels. What the MPI sends for it depends on its algorithm: about twice this a rank in a ring's all-reduce.
  std::int64_t bytes = 0;
};

/// Owns its MPI_Comm (world: a duplicate). Move-only. Must not outlive the MpiSession.
class Communicator {
 public:
  static Communicator world();
  /// Rank 0 of a world that is not there: collectives tell the ledger and leave their buffers as they are. `ledger`
  /// outlives what is made from it.
  static Communicator planned(int ranks, int ranks_per_node, device::Ledger& ledger);
  Communicator() = default;  ///< of no use until assigned
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  ~Communicator();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  MPI_Comm mpi() const { return comm_; }
  /// Of a planned communicator, else null.
  device::Ledger* ledger() const;

  /// Gives it the name it has in traffic(); "world" for the world, else "part" until then.
  Communicator named(std::string name) &&;
  /// Counts since construction, without kinds that never happened. Each call of a function here counts once, however
  /// many messages MPI makes of it. A communicator of one rank sends nothing and counts nothing. Call it while no
  /// collective is in progress.
  std::vector<Traffic> traffic() const;
  /// Of the staging memory.
  std::int64_t staging_bytes() const;

  /// Ranks of equal `color` form a communicator, ordered by rank.
  Communicator split(int color) const;
  /// Groups of `group_size` consecutive ranks; Error(input) if it does not divide size().
  Communicator split_groups(int group_size) const;
  /// The ranks that have the same place in their groups of `group_size` consecutive ranks; Error(input) as above.
  Communicator split_across(int group_size) const;
  /// The same ranks, for messages of their own.
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

  // Of flat blocks. `wire` is the type that travels: f32, or bf16 or f16, where every value is rounded to nearest even
  // on its way out, and every sum of two (taken in float) again. What is sent is staged in rounds of at most about
  // kStagingBytes, whatever the message: the copies that an MPI makes of its own stay as small. The staging memory is
  // this communicator's, asked for with the first such call. Any size of message.
  static constexpr std::size_t kStagingBytes = std::size_t{8} << 20;

  /// Sum over ranks, on every rank. Staged for 16 bits only.
  void sum(std::span<float> values, DType wire, std::size_t staging_bytes = kStagingBytes) const;
  /// `whole` is cut as balanced_begin() says. Afterwards part r of rank r's `whole` is the sum over ranks; what its
  /// other parts hold is not specified. Always staged.
  void reduce_scatter_parts(std::span<float> whole, DType wire = DType::f32,
                            std::size_t staging_bytes = kStagingBytes) const;
  /// Part r of rank r's `whole` to all. Staged only above `most_elems`, which MPI 3 cannot count in one message.
  void all_gather_parts(std::span<float> whole, std::size_t most_elems = INT_MAX,
                        std::size_t staging_bytes = kStagingBytes) const;

 private:
  friend class DeviceCommunicator;  // counts and is recorded as this one, and travels over NCCL
  using Kind = device::Message::Kind;
  struct Record;  // name, counters, staging memory: what moves with the communicator and const calls may change

  explicit Communicator(MPI_Comm comm, std::string name = "part");
  /// True: planned, nothing is to be sent.
  [[nodiscard]] bool only_plans(Kind kind, std::size_t bytes) const;
  Communicator planned_part(int size, int node_ranks) const;
  void* staging(std::size_t bytes) const;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  std::shared_ptr<Record> record_;
};

/// Where part `part` of `parts` of a range of `count` elements begins: balanced to the element.
inline std::int64_t balanced_begin(std::int64_t count, int part, int parts) {
  return count / parts * part + std::min<std::int64_t>(count % parts, part);
}

/// Set-up phases: runs `phase` on every rank; if it threw anywhere, every rank throws the same Error (that of the
/// lowest failing rank, with "n of m ranks failed" where more than one did). `phase` must hold no collective.
void agree(const Communicator& comm, const std::string& name, const std::function<void()>& phase);

/// Where leave_trace() and die() write, once a run folder exists.
void leave_traces_in(const std::string& run_dir);
/// Removes those of earlier starts, of all ranks.
void forget_old_traces(const std::string& run_dir);
/// Writes error.<rank>.txt: rank, host, message, stack.
void leave_trace(const std::string& message);

/// In the step loop: prints one line, writes error.<rank>.txt with the stack, and ends all ranks with this exit code.
/// An alarm ends the process if aborting hangs.
[[noreturn]] void die(const std::string& message, int exit_code);

}  // namespace seer::comm
