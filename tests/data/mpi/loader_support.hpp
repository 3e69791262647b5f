// SPDX-License-Identifier: Apache-2.0
// Sources of batches over two tiny shards, and their global batches gathered from all ranks.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../tiny_shards.hpp"
#include "seer/base/checksum.hpp"
#include "seer/data/source.hpp"

namespace seer::data {

constexpr std::uint64_t kImages = test::kTinyImages;

class LoaderMpi : public testing::Test {
 protected:
  LoaderMpi() : world_(comm::Communicator::world()), folder_(&world_) {
    config_.crops = {{2, 16, {0.14, 1.0}}, {3, 8, {0.05, 0.14}}};
    config_.data.shards = folder_.path();
    config_.data.global_batch = 8;
    config_.data.block_images = 8;
    config_.data.window_blocks = 2;
    config_.data.seed = 3;
    config_.data.reader_threads = 2;
    config_.log.run_dir = folder_ / "run";
  }
  void write(const std::set<std::uint64_t>& bad = {}) {
    if (world_.is_root()) test::write_tiny_shards(folder_, bad);
    world_.barrier();
  }

  std::unique_ptr<BatchSource> source_at(std::int64_t update, Labels labels = Labels::ignore) {
    return open_source(config_, world_, Start{update, update * config_.data.global_batch}, nullptr, std::nullopt,
                       labels);
  }

  /// The global batch as a single rank would see it, crop after crop and image after image. Equal on all ranks.
  std::vector<float> gather(const Batch& batch, std::vector<std::uint64_t>* images = nullptr) {
    std::vector<float> all;
    for (const auto& group : batch.groups) {
      const std::int64_t pixels = group.size * group.size * 3, here = batch.images;
      std::vector<float> mine(group.images.f32(), group.images.f32() + group.images.elems());
      std::vector<float> parts(mine.size() * static_cast<std::size_t>(world_.size()));
      world_.all_gather(mine, parts);
      for (int crop = 0; crop < group.count; ++crop)
        for (std::int64_t rank = 0; rank < world_.size(); ++rank) {
          const auto first = ((rank * group.count + crop) * here) * pixels;
          all.insert(all.end(), parts.begin() + first, parts.begin() + first + here * pixels);
        }
    }
    if (images != nullptr) {
      std::string mine(reinterpret_cast<const char*>(batch.positions.data()), batch.positions.size() * 8);
      for (const auto& part : world_.all_gather(mine)) {
        const auto old = images->size();
        images->resize(old + part.size() / 8);
        std::memcpy(images->data() + old, part.data(), part.size());
      }
    }
    return all;
  }

  /// Checksums of the global batches of updates [first, first + count), each in its own loader run.
  std::vector<std::uint64_t> checksums(std::int64_t first, int count) {
    const auto source = source_at(first);
    std::vector<std::uint64_t> sums;
    for (int i = 0; i < count; ++i) {
      const auto& batch = source->next();
      EXPECT_EQ(batch.update, first + i);
      const auto all = gather(batch);
      sums.push_back(checksum(all.data(), all.size() * sizeof(float)));
    }
    return sums;
  }

  /// The same batches from a loader that acts as the only rank. Every rank does this by itself.
  std::vector<std::uint64_t> checksums_alone(std::int64_t first, int count, std::size_t threads) {
    const auto loader = open_shards(config_, DataSet::open(config_.data.shards, world_), 0, 1, threads,
                                    Start{first, first * config_.data.global_batch}, Labels::ignore);
    std::vector<std::uint64_t> sums;
    for (int i = 0; i < count; ++i) {
      std::vector<float> all;
      for (const auto& group : loader->next().groups)
        all.insert(all.end(), group.images.f32(), group.images.f32() + group.images.elems());
      sums.push_back(checksum(all.data(), all.size() * sizeof(float)));
    }
    return sums;
  }

  comm::Communicator world_;
  test::TemporaryFolder folder_;
  config::Config config_;
};

}  // namespace seer::data
