// SPDX-License-Identifier: Apache-2.0
// What a planned machine is told. `seer plan`, and every run before it starts, goes through whole updates on a machine
// that computes nothing (Space::planned): kernels, library calls and collectives return at once and tell a ledger what
// they would have done. So a plan is made by the program itself, and cannot drift away from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "seer/base/dtype.hpp"

namespace seer::device {

/// One kernel or library call.
struct Work {
  enum class Kind : std::uint8_t {
    stream,     ///< bound by memory: everything but the products below
    pointwise,  ///< 1x1 convolution
    grouped,    ///< grouped 3x3 convolution
    dense,      ///< ungrouped 3x3 convolution (the stem)
    gemm,
  };
  enum class Direction : std::uint8_t { forward, backward_data, backward_weights };
  Kind kind = Kind::stream;
  Direction direction = Direction::forward;
  DType dtype = DType::f32;  ///< of the operands
  std::int64_t width = 1;    ///< grouped: of a group; else the smaller side of the product, in channels
  double flops = 0;          ///< 2 per multiply-accumulate
  double bytes = 0;          ///< read and written
  int launches = 1;          ///< of kernels and copies on a device; of a library's call at least so many
};

/// One collective of `ranks` ranks, `node_ranks` of which share a node. Bytes as comm::Traffic counts them.
struct Message {
  enum class Kind : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, barrier };
  std::string name;  ///< of the communicator
  Kind kind = Kind::all_reduce;
  int ranks = 1, node_ranks = 1;
  double bytes = 0;
};

class Ledger {
 public:
  virtual ~Ledger() = default;
  virtual void work(const Work& work) = 0;
  virtual void message(const Message& message) = 0;
  /// Work and messages until end_aside() are done beside the main line (comm::Stream). Returns a ticket.
  virtual void begin_aside() = 0;
  virtual std::uint64_t end_aside() = 0;
  /// The main line waits for what had this ticket, and for what was put aside before it.
  virtual void wait(std::uint64_t ticket) = 0;
  /// The planned machine's clock.
  virtual double now_ms() const = 0;
};

/// Counts nothing: for those who want the memory alone.
class NullLedger : public Ledger {
 public:
  void work(const Work&) override {}
  void message(const Message&) override {}
  void begin_aside() override {}
  std::uint64_t end_aside() override { return ++tickets_; }
  void wait(std::uint64_t) override {}
  double now_ms() const override { return 0; }

 private:
  std::uint64_t tickets_ = 0;
};

/// Where planned memory would lie: an address that no machine has, so that touching it ends the program.
inline void* planned_address() {
  return reinterpret_cast<void*>(std::uintptr_t{1} << 60);
}

}  // namespace seer::device
