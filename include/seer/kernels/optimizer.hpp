// SPDX-License-Identifier: Apache-2.0
// Updates over flat blocks (spec 5.1): few passes over all parameters, guided by a table of tensors.
//
// On a device queue the flat blocks and matrices lie on the device; tables of ranges, squares, skip flags and numbers
// that are returned lie on the host. What gives the host a number waits for the queue: squared_norms, first_non_finite.
// With a FlatRanges in place of the ranges everything lies where the queue's kernels are, and nothing waits: for
// updates that are recorded (device/graph.hpp), and for norms that are summed over ranks on the device.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::kernels {

using device::Queue;
using device::Tensor;

/// A tensor's range [begin, end) of a flat block, cut to what this rank holds.
struct Range {
  std::int64_t begin = 0, end = 0;
};

/// squares[i] = sum of x^2 over ranges[i] (double). One pass.
void squared_norms(Queue& queue, const float* x, std::span<const Range> ranges, double* squares);

struct UpdateRule {
  float lr = 0, momentum = 0.9F, weight_decay = 0, trust = 0.001F, epsilon = 1e-8F;
  float gradient_factor = 1;  ///< gradients are multiplied by it first: 1 / loss scale
  bool lars = true;           ///< false: plain SGD (g + weight_decay * p)
};

/// For every range i not skipped: LARS (spec 5.1: scaling mode, zero-norm rule: a tensor whose parameter or gradient
/// norm is exactly zero takes the raw gradient without decay), then momentum = m*momentum + g, p -= lr * momentum. The
/// momentum block starts as zeros, which makes the first step "buf = g". gradient_squares are of the gradients as they
/// lie in memory, without the rule's factor.
void optimizer_update(Queue& queue, std::span<const Range> ranges, std::span<const std::uint8_t> skip,
                      const double* parameter_squares, const double* gradient_squares, const UpdateRule& rule,
                      const float* gradients, float* momenta, float* parameters);

/// Ranges as the queue's kernels want them, made once. Where the space is a device's, making one waits for it.
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
/// squares[i] (double) as above. Two launches.
void squared_norms(Queue& queue, const FlatRanges& ranges, const float* x, double* squares);
/// The update as above, one launch. skip: a flag for each range, or null.
void optimizer_update(Queue& queue, const FlatRanges& ranges, const std::uint8_t* skip, const double* parameter_squares,
                      const double* gradient_squares, const UpdateRule* rule, const float* gradients, float* momenta,
                      float* parameters);
/// *place = what first_beyond returns.
void first_beyond(Queue& queue, const float* x, std::int64_t count, float limit, std::int64_t* place);

/// Every row divided by max(its norm, 1e-12) (prototypes, after each update). Rows whose norm is within `tolerance` of
/// one stay as they are (0: none does).
void normalize_rows(Queue& queue, const Tensor& matrix, float tolerance = 0);

/// Index of the first element that is not a number or whose magnitude is above `limit`, or -1.
std::int64_t first_beyond(Queue& queue, const float* x, std::int64_t count, float limit);
inline std::int64_t first_non_finite(Queue& queue, const float* x, std::int64_t count) {
  return first_beyond(queue, x, count, std::numeric_limits<float>::max());
}

}  // namespace seer::kernels
