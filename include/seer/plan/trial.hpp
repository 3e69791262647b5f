// SPDX-License-Identifier: Apache-2.0
// What is timed: a tensor of numbers, the three calls of a convolution, whole updates on a made-up batch.
#pragma once

#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/memory.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::plan {

double median(std::vector<double> values);

/// Random numbers in [-0.5, 0.5) in the queue's memory, repeating after 4 Mi elements. Waits for the queue.
struct Values {
  device::Buffer memory;
  device::Tensor tensor;
  Values(device::Queue& queue, const device::Shape& shape, DType type, std::uint64_t seed = 1);
};

/// Allocates all tensors of a convolution. `queue` and `backend` must outlive it.
class ConvTrial {
 public:
  ConvTrial(device::Queue& queue, dnn::Backend& backend, const dnn::ConvShape& shape, DType type);
  ~ConvTrial();
  ConvTrial(const ConvTrial&) = delete;
  ConvTrial& operator=(const ConvTrial&) = delete;

  /// On the host with a new version of the weights at each call, as after each update: packing is part of the time. On
  /// a device an update packs weights once, for all crop sizes and both directions; `seer bench step` includes that.
  void call(dnn::Direction direction);

 private:
  device::Queue& queue_;
  dnn::Backend& backend_;
  dnn::ConvShape shape_;
  Values src_, d_dst_, weight_;
  device::Buffer d_weight_, out_;
  std::uint64_t version_ = 1;
};

/// This rank's part of a batch, with random pixels in `space`.
struct MadeUpBatch {
  data::Batch batch;
  std::vector<Values> pixels;
  MadeUpBatch(const config::Config& config, const comm::Communicator& world, device::Space space);
};

}  // namespace seer::plan
