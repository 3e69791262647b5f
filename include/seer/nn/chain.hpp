// SPDX-License-Identifier: Apache-2.0
// A network that runs segment by segment: a trunk or a head. A segment needs all its parameters at the same time, and
// all its gradients are complete at the same time. So parameters can be gathered and dropped, and gradients summed over
// ranks, segment by segment, and inputs of several sizes can pass through a segment one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/nn/context.hpp"

namespace seer::nn {

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
  virtual const std::vector<std::int64_t>& segment_begins() const = 0;
  std::size_t segments() const { return segment_begins().size() - 1; }
  /// Columns of the last segment's output.
  virtual std::int64_t width() const = 0;
  virtual std::vector<Tap> taps() const { return {}; }
  virtual std::unique_ptr<Pass> make_pass(PassOptions options = {}) const = 0;

  /// Runs one segment; call it from the first segment to the last. The first reads `in`, which must stay until the
  /// backward pass is over; the last writes `out` [rows, width()], float.
  virtual void forward(const Context& ctx, std::size_t segment, device::Tensor in, Pass& pass,
                       device::Tensor out) const = 0;
  /// Runs one segment backward; call it from the last segment to the first. Adds to the parameters' gradients. The last
  /// segment reads `d_out`; the first writes `d_in`, if that has memory.
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
