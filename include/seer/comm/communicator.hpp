// SPDX-License-Identifier: Apache-2.0
// Ranks and collectives over MPI. Every MPI call is checked; a failure is Error(device).
// All collectives are blocking and must be entered by every rank of the communicator in the same order.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

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

/// Owns its MPI_Comm (world: a duplicate). Move-only. Must not outlive the MpiSession.
class Communicator {
 public:
  static Communicator world();
  Communicator() = default;  ///< of no use until assigned
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  ~Communicator();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  MPI_Comm mpi() const { return comm_; }

  /// Ranks of equal `color` form a communicator, ordered by rank.
  Communicator split(int color) const;
  /// Groups of `group_size` consecutive ranks; Error(input) if it does not divide size().
  Communicator split_groups(int group_size) const;
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
  /// `whole` is cut as balanced_begin() says: rank r's part of the sum over ranks goes to `mine` of rank r.
  void reduce_scatter(std::span<const float> whole, std::span<float> mine) const;
  /// The reverse: every rank's part, in place in `whole`, to all.
  void all_gather_parts(std::span<float> whole) const;

 private:
  explicit Communicator(MPI_Comm comm);
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
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
/// Writes error.<rank>.txt: rank, host, message, stack.
void leave_trace(const std::string& message);

/// In the step loop: prints one line, writes error.<rank>.txt with the stack, and ends all ranks with this exit code.
/// An alarm ends the process if aborting hangs.
[[noreturn]] void die(const std::string& message, int exit_code);

}  // namespace seer::comm
