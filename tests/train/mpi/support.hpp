// SPDX-License-Identifier: Apache-2.0
// The reference's training run (training.h5): configuration, batches and starting values.
#pragma once

#include "nn/support.hpp"
#include "seer/train/learner.hpp"

namespace seer::train {

constexpr std::int64_t kImages = 8;

struct ShardMode {
  const char* shard;
  std::int64_t group;  ///< 0: all ranks
};
constexpr ShardMode kShardModes[] = {{"none", 0},      {"optimizer", 0}, {"gradients", 0}, {"parameters", 0},
                                     {"optimizer", 2}, {"gradients", 2}, {"parameters", 2}};

inline config::Config golden_config(int bn_group_size) {
  config::Config c;
  c.model.preset = "tiny";
  c.head.dims = {64, 32, 16};
  c.head.prototypes = 24;
  c.swav.freeze_prototypes_updates = 2;
  c.crops = {{2, 32, {0.14, 1.0}}, {4, 16, {0.05, 0.14}}};
  c.data.global_batch = kImages;
  c.parallel.bn_group_size = bn_group_size;
  c.parallel.bucket_bytes = 1000;  // several odd buckets
  c.parallel.device = "host";      // also where there are devices: perhaps fewer than ranks
  return c;
}

inline config::Config golden_config(int bn_group_size, const ShardMode& mode) {
  auto c = golden_config(bn_group_size);
  c.parallel.shard = mode.shard;
  c.parallel.shard_group = mode.group;
  return c;
}

/// The reference's batches(step), this rank's slice, as NHWC.
struct GoldenBatch {
  data::Batch batch;
  std::vector<std::vector<float>> storage;

  GoldenBatch(std::int64_t step, const comm::Communicator& comm) {
    const std::int64_t mine = kImages / comm.size();
    batch.update = step;
    batch.images = mine;
    int first = 0;
    for (const auto& [size, count] : {std::pair{32, 2}, std::pair{16, 4}}) {
      std::vector<float> group;
      for (int c = 0; c < count; ++c) {
        const auto seed = static_cast<std::uint64_t>(1 + 1000 + 10 * step + first + c);
        const std::int64_t plane = 3 * size * size;
        std::vector<double> slice;
        for (std::int64_t i = comm.rank() * mine * plane; i < (comm.rank() + 1) * mine * plane; ++i) {
          slice.push_back(test::hash_value(seed, static_cast<std::uint64_t>(i), 1.7));
        }
        const auto nhwc = test::to_nhwc(slice, mine, 3, size, size);
        group.insert(group.end(), nhwc.begin(), nhwc.end());
      }
      storage.push_back(std::move(group));
      batch.groups.push_back({size, first, count, {.data = nullptr, .shape = {count * mine, size, size, 3}}});
      first += count;
    }
    for (std::size_t g = 0; g < storage.size(); ++g) batch.groups[g].images.data = storage[g].data();
  }
};

inline void set_golden_start(Learner& learner) {
  std::vector<float> block(static_cast<std::size_t>(learner.model().parameters().block_elems()));
  test::hash_init(learner.model().parameters(), 1, block.data());
  for (auto& slab : learner.slabs()) {
    if (slab.group != "model") continue;
    const auto& p = learner.model().parameters().find(slab.name);
    std::copy(block.begin() + p.offset + slab.begin, block.begin() + p.offset + slab.end, slab.data);
  }
  learner.share_loaded();
}

}  // namespace seer::train
