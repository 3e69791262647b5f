// SPDX-License-Identifier: Apache-2.0
// A network that runs segment by segment: a trunk or a head. The parameters of a segment are needed, and its gradients
// are complete, at one time. So they can be gathered, summed over ranks and dropped segment by segment, and inputs of
// several sizes can pass a segment one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/nn/context.hpp"

namespace seer::nn {

/// What a segment keeps from its forward to its backward pass. The rest is computed again, to the same bits, from what
/// is kept: without collectives, and without a change of running statistics (method.md 7.2).
enum class Keep : std::uint8_t {
  all,
  convolutions,  ///< drops what follows a convolution by a pass over memory: BatchNorm + ReLU, the gated product
  input,         ///< drops all but input, output and BatchNorm's statistics
};

/// What one forward pass leaves for its backward pass. It is of the chain that made it.
class Pass {
 public:
  virtual ~Pass() = default;
  /// The output of a segment that has run forward. In training it stays until its own backward pass; where nothing is
  /// kept for one (Context::keeps), until the next segment has run, or, where PassOptions::outputs names it, until the
  /// pass is used again or ends.
  virtual device::Tensor output(std::size_t segment) const = 0;
  /// The gradient of the output of the segment whose backward pass comes next. Whoever else used that output adds to
  /// it. Not for the last segment, whose gradient is handed in.
  virtual device::Tensor gradient() const = 0;
};

struct PassOptions {
  std::vector<Keep> keep = {};            ///< of each segment; empty: all
  std::vector<std::size_t> outputs = {};  ///< segments whose outputs stay where nothing is kept
};

/// A segment whose output has a name that users know.
struct Tap {
  std::string name;
  std::size_t segment = 0;
};

class Chain {
 public:
  virtual ~Chain() = default;

  /// Where the parameters of each segment begin in a block; at last where those of the last one end.
  virtual const std::vector<std::int64_t>& segment_begins() const = 0;
  std::size_t segments() const { return segment_begins().size() - 1; }
  /// Columns of what the last segment writes.
  virtual std::int64_t width() const = 0;
  virtual std::vector<Tap> taps() const { return {}; }
  virtual std::unique_ptr<Pass> make_pass(PassOptions options = {}) const = 0;

  /// From the first segment to the last. `in` is read by the first, and must stay until the backward pass is over;
  /// `out` [rows, width()], float, is written by the last.
  virtual void forward(const Context& ctx, std::size_t segment, device::Tensor in, Pass& pass,
                       device::Tensor out) const = 0;
  /// From the last segment to the first; gradients of parameters are added to. `d_out` is read by the last. `d_in`,
  /// where it has memory, is written by the first.
  virtual void backward(const Context& ctx, std::size_t segment, device::Tensor d_out, Pass& pass,
                        device::Tensor d_in) const = 0;

  /// All segments.
  void forward_all(const Context& ctx, device::Tensor in, Pass& pass, device::Tensor out) const {
    for (std::size_t s = 0; s < segments(); ++s) forward(ctx, s, in, pass, out);
  }
  void backward_all(const Context& ctx, device::Tensor d_out, Pass& pass, device::Tensor d_in = {}) const {
    for (std::size_t s = segments(); s-- > 0;) backward(ctx, s, d_out, pass, d_in);
  }
};

}  // namespace seer::nn
