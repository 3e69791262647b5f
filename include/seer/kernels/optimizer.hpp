// SPDX-License-Identifier: Apache-2.0
// Updates over flat blocks (method.md 5.1): few passes over all parameters, guided by a table of tensors.
//
// Everything a pointer points to lies where the queue's kernels are, results included, and no call waits for the queue:
// updates can be recorded (device/graph.hpp), and norms can be summed over ranks on the device.
#pragma once

#include <cstdint>
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

/// Ranges as the kernels want them, made once. On a device, making one waits for it.
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
  float gradient_factor = 1;  ///< gradients are multiplied by it first: 1 / loss scale
  bool lars = true;           ///< false: plain SGD (g + weight_decay * p)
};

/// Exceptions of one range from the rule: the sum of these.
enum RangeFlag : std::uint8_t {
  kSkipped = 1,  ///< not updated at all
  kNoDecay = 2,  ///< as if weight_decay were 0
  kNoTrust = 4,  ///< as if lars were false
};

/// For every range: LARS (method.md 5.1: scaling mode, zero-norm rule: a tensor whose parameter or gradient norm is
/// exactly zero takes the raw gradient without decay), then momentum = m*momentum + g, p -= lr * momentum. The momentum
/// block starts as zeros, which makes the first step "buf = g". gradient_squares are of the gradients as they lie in
/// memory, without the rule's factor. `flags`: of each range, or null for none. One launch.
void optimizer_update(Queue& queue, const FlatRanges& ranges, const std::uint8_t* flags,
                      const double* parameter_squares, const double* gradient_squares, const UpdateRule* rule,
                      const float* gradients, float* momenta, float* parameters);

/// Every row divided by max(its norm, 1e-12) (prototypes, after each update). Rows whose norm is within `tolerance` of
/// one stay as they are (0: none does).
void normalize_rows(Queue& queue, const Tensor& matrix, float tolerance = 0);

/// *place = index of the first element that is not a number or whose magnitude is above `limit`, or -1.
void first_beyond(Queue& queue, const float* x, std::int64_t count, float limit, std::int64_t* place);

}  // namespace seer::kernels
