// SPDX-License-Identifier: Apache-2.0
// A network that runs segment by segment: a trunk or a head. A segment needs all its parameters at the same time, and
// all its gradients are complete at the same time. So parameters can be gathered and dropped, and gradients summed over
// ranks, segment by segment, and inputs of several sizes can pass through a segment one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/nn/parameter.hpp"
#include "seer/nn/rounded.hpp"

namespace seer::nn {

enum class Mode {
  train,    ///< uses batch statistics and updates the running ones
  observe,  ///< the same, but keeps nothing for a backward pass
  eval,     ///< uses running statistics and keeps nothing
  replay,   ///< recomputes a segment with its kept statistics; no collective, no change of running statistics
};

/// Sums packed values over a BatchNorm group, in place, in the queue's order. nn knows no MPI: train implements this.
class StatisticsReduction {
 public:
  virtual ~StatisticsReduction() = default;
  virtual void sum(device::Queue& queue, double* values, std::size_t count) = 0;
  /// Number of ranks in the group. If a backward pass follows, all ranks must have the same number of rows.
  virtual int size() const = 0;
};

/// The argument of every layer: libraries, memory, the flat blocks, and the mode.
struct Context {
  dnn::Backend* dnn = nullptr;
  device::Pool* pool = nullptr;
  mutable device::Queue queue;        ///< mutable, because kernels take it by reference
  const float* parameters = nullptr;  ///< block with the layout of the model's table, or the part in use
  float* gradients = nullptr;         ///< the same
  bool add_gradients = true;          ///< layers add to `gradients`; false: they overwrite them
  std::int64_t parameters_begin = 0, gradients_begin = 0;  ///< block offset of the first element in use
  float* buffers = nullptr;                                ///< running statistics
  std::uint64_t version = 0;                               ///< of the parameters; 0: they may change any time
  RoundedWeights* rounded = nullptr;                       ///< null: linear layers round their weights at each use
  /// Type of the trunk's activations and their gradients; operands of products are rounded to it (method.md 5.3).
  /// Parameters, statistics, features and the head's activations are float.
  DType compute = DType::f32;
  Mode mode = Mode::train;
  /// BatchNorm always uses its running statistics, as constants of the backward pass, and does not change them.
  bool fixed_statistics = false;
  /// True if a backward pass follows.
  bool keeps() const { return mode == Mode::train || mode == Mode::replay; }
  StatisticsReduction* group = nullptr;  ///< null: this rank alone
  /// The same, to recompute a segment.
  Context replay() const {
    Context again = *this;
    again.mode = Mode::replay;
    return again;
  }

  const float* at(std::int64_t offset) const { return parameters + (offset - parameters_begin); }
  float* grad(std::int64_t offset) const { return gradients + (offset - gradients_begin); }
  /// Borrows a tensor for activations of the trunk.
  device::Loan activation(device::Shape shape) const { return pool->tensor(shape, compute); }
  dnn::Weights weights(std::int64_t offset) const { return {at(offset), version}; }
  dnn::Accumulate accumulate() const { return add_gradients ? dnn::Accumulate::yes : dnn::Accumulate::no; }
};

/// What a segment keeps from its forward to its backward pass. The rest is recomputed from that, with the same bits,
/// without collectives and without changing the running statistics (method.md 7.2).
enum class Keep : std::uint8_t {
  all,
  convolutions,  ///< drops what one pass over memory gives from a convolution's output: BatchNorm + ReLU, gating
  input,         ///< drops all but input, output and BatchNorm's statistics
};

/// What one forward pass leaves for its backward pass. Use it only with the chain that made it.
class Pass {
 public:
  virtual ~Pass() = default;
  /// The output of a segment that has run forward. It lasts until that segment's backward pass. If no backward pass
  /// follows (Context::keeps), it lasts until the next segment has run; if PassOptions::outputs names the segment,
  /// until the pass is reused or destroyed.
  virtual device::Tensor output(std::size_t segment) const = 0;
  /// The gradient of the output of the segment whose backward pass comes next. Other users of that output add their
  /// gradient to it. Not for the last segment, whose gradient is an argument of backward().
  virtual device::Tensor gradient() const = 0;
  /// Returns all memory, if the backward pass ends before the first segment.
  virtual void clear() {}
};

struct PassOptions {
  std::vector<Keep> keep = {};            ///< one per segment; empty: Keep::all
  std::vector<std::size_t> outputs = {};  ///< segments whose outputs stay without a backward pass
};

/// A segment whose output has a public name, such as "res5".
struct Tap {
  std::string name;
  std::size_t segment = 0;
};

class Chain {
 public:
  virtual ~Chain() = default;

  /// Offsets in a block at which the parameters of each segment begin, and then the end of the last segment's.
  const std::vector<std::int64_t>& segment_begins() const { return begins_; }
  std::size_t segments() const { return begins_.size() - 1; }
  /// Columns of the last segment's output.
  std::int64_t width() const { return width_; }
  virtual std::vector<Tap> taps() const { return {}; }
  virtual std::unique_ptr<Pass> make_pass(PassOptions options = {}) const = 0;

  /// Runs one segment; call it from the first segment to the last. The first reads `in`, which must stay until the
  /// backward pass is over; the last writes `out` [rows, width()], float.
  virtual void forward(const Context& ctx, std::size_t segment, device::Tensor in, Pass& pass,
                       device::Tensor out) const = 0;
  /// Runs one segment backward; call it from the last segment to the first. Adds to the parameters' gradients, or
  /// overwrites them (Context::add_gradients). The last segment reads `d_out`; the first writes `d_in`, if that has
  /// memory.
  virtual void backward(const Context& ctx, std::size_t segment, device::Tensor d_out, Pass& pass,
                        device::Tensor d_in) const = 0;

  /// All segments.
  void forward_all(const Context& ctx, device::Tensor in, Pass& pass, device::Tensor out) const {
    for (std::size_t s = 0; s < segments(); ++s) forward(ctx, s, in, pass, out);
  }
  void backward_all(const Context& ctx, device::Tensor d_out, Pass& pass, device::Tensor d_in = {}) const {
    for (std::size_t s = segments(); s-- > 0;) backward(ctx, s, d_out, pass, d_in);
  }

 protected:
  /// For constructors: call it before the parameters of the first segment are registered, and after those of each one.
  void end_segment(const ParameterTable& parameters) { begins_.push_back(parameters.block_elems()); }

  std::int64_t width_ = 0;

 private:
  std::vector<std::int64_t> begins_;
};

}  // namespace seer::nn
