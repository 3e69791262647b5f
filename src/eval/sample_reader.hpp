// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"

namespace seer::eval {

/// Batches of images drawn evenly from the whole data set and shuffled, since data sets are often sorted by class and
/// BatchNorm needs representative batches. The global batch has max(options.batch, ranks) images. Each rank gets a
/// contiguous part of every batch, at least one image.
class SampleReader {
 public:
  /// Error(input) if there are fewer images than ranks. Cuts `images` to the data set, then to full batches.
  SampleReader(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
               const data::EvalOptions& options);
  /// This rank's part of the next batch, [n, side, side, 3], valid until the next call; nullptr after the last one.
  const device::Tensor* next();
  std::int64_t batches() const { return batches_; }
  /// Number of images in all batches of all ranks.
  std::int64_t images() const { return batches_ * batch_; }

 private:
  const comm::Communicator& comm_;
  const data::DataSet& data_;
  data::EvalOptions options_;
  std::vector<std::uint64_t> order_;
  std::int64_t batch_ = 0, batches_ = 0, at_ = 0;
  std::vector<float> pixels_;
  device::Tensor tensor_;
};

}  // namespace seer::eval
