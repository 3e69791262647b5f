// SPDX-License-Identifier: Apache-2.0
// Updates over flat blocks (method.md 5.1): few passes over all parameters, guided by a table of tensors.
//
// All pointers, results included, refer to memory that the queue's kernels can reach. No call waits for the queue, so
// updates can be recorded (device/graph.hpp) and norms can be summed over ranks on the device.
#pragma once

#include <cstdint>
#include <span>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// A tensor's range [begin, end) in a flat block, clipped to the part that this rank holds.
struct Range {
  std::int64_t begin = 0, end = 0;
};

/// Ranges in the form that the kernels use, made once. For a device, the constructor waits for the copy.
class FlatRanges {
 public:
  FlatRanges() = default;
  FlatRanges(device::Space space, std::span<const Range> ranges);
  std::int64_t ranges() const { return ranges_; }

 private:
  friend struct FlatTables;
  device::Buffer tables_;
  std::int64_t ranges_ = 0, pieces_ = 0, elems_ = 0;
};

/// squares[i] = sum of x^2 over range i. Two launches.
void squared_norms(Queue& queue, const FlatRanges& ranges, const float* x, double* squares);

struct UpdateRule {
  float lr = 0, momentum = 0.9F, weight_decay = 0, trust = 0.001F, epsilon = 1e-8F;
  float gradient_factor = 1;  ///< multiplies the gradients first: 1 / loss scale
  bool lars = true;           ///< false: plain SGD (g + weight_decay * p)
  bool nesterov = false;      ///< p -= lr * (g' + m * momentum) instead of p -= lr * momentum
};

/// Exceptions from the rule; add them to combine them.
enum RangeFlag : std::uint8_t {
  kSkipped = 1,  ///< not updated at all
  kNoDecay = 2,  ///< as if weight_decay were 0
  kNoTrust = 4,  ///< as if lars were false
};

/// How the rule is applied to one range.
struct RangeRule {
  float rate = 1;           ///< factor on lr
  float weight_decay = -1;  ///< instead of the rule's; negative: the rule's
  std::uint32_t flags = 0;  ///< sum of RangeFlag
};

/// For every range: LARS (method.md 5.1, scaling mode), then momentum = m*momentum + g, p -= lr * momentum. A tensor
/// whose parameter or gradient norm is exactly zero takes the raw gradient without decay. The momentum block starts as
/// zeros, which makes the first step "buf = g". gradient_squares are of the gradients in memory, before
/// gradient_factor. `own`: one for each range, or null. One launch. next_squares: if not null, gets the squared norms
/// of the new parameters, the same bits as from squared_norms, in one more launch; may be parameter_squares.
void optimizer_update(Queue& queue, const FlatRanges& ranges, const RangeRule* own, const double* parameter_squares,
                      const double* gradient_squares, const UpdateRule* rule, const float* gradients, float* momenta,
                      float* parameters, double* next_squares = nullptr);

/// Divides every row by max(its norm, 1e-12); used for prototypes after each update. Skips rows whose norm is within
/// `tolerance` of one (0: skips none).
void normalize_rows(Queue& queue, const Tensor& matrix, float tolerance = 0);

/// *place = index of the first element that is NaN or whose magnitude is above `limit`, or -1.
void first_beyond(Queue& queue, const float* x, std::int64_t count, float limit, std::int64_t* place);

}  // namespace seer::kernels
