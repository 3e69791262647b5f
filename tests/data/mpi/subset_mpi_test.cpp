// SPDX-License-Identifier: Apache-2.0
// Training on a part of a labelled set.
#include "seer/data/subset.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "../tiny_shards.hpp"
#include "seer/base/error.hpp"
#include "seer/data/source.hpp"

namespace seer::data {
namespace {

TEST(SubsetMpi, IsReadAloneAndInItsOwnOrder) {
  const auto world = comm::Communicator::world();
  const test::TemporaryFolder folder(&world);
  if (world.is_root()) test::write_tiny_shards(folder, {});
  world.barrier();
  config::Config config;
  config.crops = {{1, 16, {0.14, 1.0}}};
  config.data.shards = folder.path();
  config.data.global_batch = 8;
  config.data.block_images = 8;
  config.data.window_blocks = 2;
  config.data.seed = 3;
  config.data.reader_threads = 1;
  config.data.per_class = 4;
  config.data.subset_seed = 2;
  const auto open = [&] { return open_source(config, world, {}, nullptr, std::nullopt, Labels::read); };
  const auto few = subset_of(DataSet::open(folder.path(), world), subset_choice(config.data), world);
  const auto source = open();
  ASSERT_EQ(source->images(), 12U);
  const Sampler sampler(12, 3, 8, 2);
  std::map<std::int32_t, int> of_class;
  for (std::uint64_t update = 0; update < 3; ++update) {
    const auto& batch = source->next();
    for (std::size_t i = 0; i < batch.positions.size(); ++i) {
      ASSERT_EQ(batch.targets.of(i).size(), 1U);
      EXPECT_EQ(batch.targets.of(i)[0], few.labels(batch.positions[i], 1)[0]);
    }
    const std::string mine(reinterpret_cast<const char*>(batch.positions.data()), batch.positions.size() * 8);
    std::uint64_t place = 8 * update;
    for (const auto& part : world.all_gather(mine)) {
      for (std::size_t at = 0; at < part.size(); at += 8) {
        std::uint64_t image = 0;
        std::memcpy(&image, part.data() + at, 8);
        EXPECT_EQ(image, sampler.image(place++));
        ++of_class[few.labels(image, 1)[0]];
      }
    }
  }
  EXPECT_EQ(of_class, (std::map<std::int32_t, int>{{0, 8}, {1, 8}, {2, 8}}));  // two epochs
  config.data.per_class = 1;
  if (world.size() <= 3) {
    EXPECT_EQ(subset_of(DataSet::open(folder.path(), world), subset_choice(config.data), world).images(), 3U);
    return;
  }
  try {
    open();
    FAIL() << "3 images for 4 ranks are accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(e.message().find("1 images of each class leaves 3 images of 50 for 4 ranks"), std::string::npos);
  }
}

}  // namespace
}  // namespace seer::data
