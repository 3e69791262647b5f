// SPDX-License-Identifier: Apache-2.0
// Records what a planned machine would do. `seer plan`, and every run before it starts, execute whole updates on a
// machine that computes nothing (Space::planned): kernels, library calls and collectives return at once and record in a
// ledger what they would have done. So the program itself makes the plan, and the two cannot drift apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "seer/base/dtype.hpp"

namespace seer::device {

/// One kernel or library call.
struct Work {
  enum class Kind : std::uint8_t {
    stream,     ///< memory-bound: everything except the products below
    pointwise,  ///< 1x1 convolution
    grouped,    ///< grouped 3x3 convolution
    dense,      ///< ungrouped 3x3 convolution (the stem)
    gemm,
  };
  enum class Direction : std::uint8_t { forward, backward_data, backward_weights };
  Kind kind = Kind::stream;
  Direction direction = Direction::forward;
  DType dtype = DType::f32;  ///< of the operands
  std::int64_t width = 1;    ///< in channels. grouped: of one group; else the smaller side of the product
  double flops = 0;          ///< 2 per multiply-accumulate
  double bytes = 0;          ///< read and written
  double weight_bytes = 0;   ///< convolution weights or their gradient: read, and packed or added to
  int launches = 1;          ///< kernels and copies on a device; a lower bound for a library call
};

/// One collective of `ranks` ranks, `node_ranks` of which share a node. Counts bytes as comm::Traffic does.
struct Message {
  enum class Kind : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, barrier };
  std::string name;  ///< the communicator's name
  Kind kind = Kind::all_reduce;
  int ranks = 1, node_ranks = 1;
  double bytes = 0;
};

class Ledger {
 public:
  virtual ~Ledger() = default;
  virtual void work(const Work& work) = 0;
  virtual void message(const Message& message) = 0;
  /// Work and messages between begin_aside() and end_aside() run concurrently with the main line (comm::Stream).
  /// end_aside() returns a ticket.
  virtual void begin_aside() = 0;
  virtual std::uint64_t end_aside() = 0;
  /// Makes the main line wait for the work with this ticket and for all work put aside before it.
  virtual void wait(std::uint64_t ticket) = 0;
  /// The planned machine's clock.
  virtual double now_ms() const = 0;
};

/// Records nothing. For callers that only want the memory.
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

/// The address of planned memory. No machine has it, so touching it ends the program.
inline void* planned_address() {
  return reinterpret_cast<void*>(std::uintptr_t{1} << 60);
}

}  // namespace seer::device
