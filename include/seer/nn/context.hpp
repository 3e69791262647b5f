// SPDX-License-Identifier: Apache-2.0
// The argument of every layer: libraries, memory, the flat blocks, and the mode.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::nn {

enum class Mode {
  train,    ///< uses batch statistics and updates the running ones
  observe,  ///< the same, but keeps nothing for a backward pass
  eval,     ///< uses running statistics and keeps nothing
  replay,   ///< recomputes a segment with its kept statistics; no collective, no change of running statistics
};

/// Sums packed values over the ranks of a BatchNorm group, in place, in the queue's order. nn does not know MPI, so
/// train implements this.
class StatisticsReduction {
 public:
  virtual ~StatisticsReduction() = default;
  virtual void sum(device::Queue& queue, double* values, std::size_t count) = 0;
  /// Number of ranks in the group. If a backward pass follows, all ranks must have the same number of rows.
  virtual int size() const = 0;
};

struct Context {
  dnn::Backend* dnn = nullptr;
  device::Pool* pool = nullptr;
  device::Queue queue;
  const float* parameters = nullptr;  ///< block with the layout of the model's table, or the part in use
  float* gradients = nullptr;         ///< the same; layers add to it
  std::int64_t parameters_begin = 0, gradients_begin = 0;  ///< block offset of the first element in use
  float* buffers = nullptr;                                ///< running statistics
  std::uint64_t version = 0;                               ///< of the parameters; 0: they may change any time
  /// Type of the trunk's activations and their gradients; operands of products are rounded to it (method.md 5.3).
  /// Parameters, statistics, features and the head's activations are float.
  DType compute = DType::f32;
  Mode mode = Mode::train;
  /// True if a backward pass follows.
  bool keeps() const { return mode == Mode::train || mode == Mode::replay; }
  StatisticsReduction* group = nullptr;  ///< null: this rank alone

  const float* at(std::int64_t offset) const { return parameters + (offset - parameters_begin); }
  float* grad(std::int64_t offset) const { return gradients + (offset - gradients_begin); }
  /// Borrows a tensor for activations of the trunk.
  device::Loan activation(device::Shape shape) const { return pool->tensor(shape, compute); }
  dnn::Weights weights(std::int64_t offset) const { return {at(offset), version}; }
};

}  // namespace seer::nn
