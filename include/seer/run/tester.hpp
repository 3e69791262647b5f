// SPDX-License-Identifier: Apache-2.0
// Tests a classifier during its training, on all ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/shard.hpp"
#include "seer/method/method.hpp"
#include "seer/train/learner.hpp"

namespace seer::run {

class Tester {
 public:
  /// Collective. Opens data.test_shards. Both arguments must outlive this. Error(input), agreed, if the set has no
  /// labels or classes that data.shards lack.
  Tester(const config::Config& config, const comm::Communicator& comm);

  /// Whether to test after `completed` of `total` updates.
  bool due(std::int64_t completed, std::int64_t total) const {
    const auto every = config_.finetune.test_every;
    return completed == total || (every > 0 && completed % every == 0);
  }

  /// Collective. Tests the network as it is on centre crops, with the running statistics of the first BatchNorm
  /// group, and changes nothing. Each rank takes an equal part of the images. One class per image: test_top1,
  /// test_top5, test_mean_per_class; several: test_map, test_map_11 (method.md 8); all in per cent. Last: test_images.
  /// Images without a label are left out. Error(numerics) if scores are not finite.
  std::vector<method::Figure> test(train::Learner& learner) const;

 private:
  const config::Config& config_;
  const comm::Communicator& comm_;
  data::DataSet data_;
  std::vector<std::int32_t> number_;  ///< in training, of each class of the test set; empty: the same
};

}  // namespace seer::run
