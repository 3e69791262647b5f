// SPDX-License-Identifier: Apache-2.0
// What every layer is handed: libraries, memory, the flat blocks, and the mode.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::nn {

enum class Mode {
  train,    ///< batch statistics, running ones updated
  observe,  ///< the same, and nothing is kept for a backward pass
  eval,     ///< running statistics, nothing is kept
  replay,   ///< a segment run again: kept statistics, no collective, running statistics untouched
};

/// Sums packed values over the ranks of a BatchNorm group, in place, in the queue's order. nn does not know MPI: train
/// hands this in.
class StatisticsReduction {
 public:
  virtual ~StatisticsReduction() = default;
  virtual void sum(device::Queue& queue, double* values, std::size_t count) = 0;
  /// Ranks of the group. Where a backward pass follows, each of them has as many rows as the others.
  virtual int size() const = 0;
};

struct Context {
  dnn::Backend* dnn = nullptr;
  device::Pool* pool = nullptr;
  device::Queue queue;
  const float* parameters = nullptr;  ///< blocks laid out by the model's tables, or the stretches of them in use:
  float* gradients = nullptr;         ///< accumulated into
  std::int64_t parameters_begin = 0, gradients_begin = 0;  ///< the element of the block that the pointer points to
  float* buffers = nullptr;                                ///< running statistics
  std::uint64_t version = 0;                               ///< of the parameters; 0: may change at any time
  /// Of the trunk's activations and their gradients, and what operands of products are rounded to (method.md 5.3).
  /// Parameters, statistics, features and the head's activations are float.
  DType compute = DType::f32;
  Mode mode = Mode::train;
  /// Whether a backward pass follows.
  bool keeps() const { return mode == Mode::train || mode == Mode::replay; }
  StatisticsReduction* group = nullptr;  ///< null: a group of this rank alone

  const float* at(std::int64_t offset) const { return parameters + (offset - parameters_begin); }
  float* grad(std::int64_t offset) const { return gradients + (offset - gradients_begin); }
  /// A tensor of the trunk's activations.
  device::Loan activation(device::Shape shape) const { return pool->tensor(shape, compute); }
  dnn::Weights weights(std::int64_t offset) const { return {at(offset), version}; }
};

}  // namespace seer::nn
