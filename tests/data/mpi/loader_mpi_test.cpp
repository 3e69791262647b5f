// SPDX-License-Identifier: Apache-2.0
// The loader as the step loop sees it: the global batch does not depend on the number of ranks, a run can resume at any
// update, and bad images are replaced by the same images on any number of ranks.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <vector>

#include "loader_support.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/data/subset.hpp"
#include "seer/device/memory.hpp"

namespace seer::data {
namespace {

TEST_F(LoaderMpi, GlobalBatchIsTheSameForAnyRankCount) {
  write();
  // The reference is one rank with one thread. It is compared with 1, 2 or 4 ranks of two threads.
  const auto alone = checksums_alone(0, 10, 1);
  EXPECT_EQ(checksums(0, 10), alone);
  EXPECT_EQ(std::set<std::uint64_t>(alone.begin(), alone.end()).size(), alone.size());
}

TEST_F(LoaderMpi, ResumesAtAnyUpdateBitForBit) {
  write();
  const auto whole = checksums(0, 15);
  for (const std::int64_t start : {1, 6, 13}) {
    const auto rest = checksums(start, static_cast<int>(15 - start));
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), whole.begin() + start)) << start;
  }
}

TEST_F(LoaderMpi, AfterAChangeOfTheBatchGoesOnBehindTheImagesSeen) {
  write();
  constexpr std::int64_t kSeen = 37;  // after four updates with another batch size
  const auto source = open_source(config_, world_, Start{4, kSeen});
  const Sampler sampler(kImages, 3, 8, 2);
  for (std::int64_t u = 0; u < 6; ++u) {
    std::vector<std::uint64_t> images;
    const auto& batch = source->next();
    EXPECT_EQ(batch.update, 4 + u);
    gather(batch, &images);
    ASSERT_EQ(images.size(), 8U);
    for (std::int64_t i = 0; i < 8; ++i)
      EXPECT_EQ(images[static_cast<std::size_t>(i)], sampler.image(static_cast<std::uint64_t>(kSeen + u * 8 + i)));
  }
}

TEST_F(LoaderMpi, TakesThePositionsOfTheSampler) {
  write();
  const auto source = source_at(4);
  EXPECT_EQ(source->images(), kImages);
  EXPECT_EQ(source->shards().size(), 2U);
  const Sampler sampler(kImages, 3, 8, 2);
  for (std::int64_t update = 4; update < 20; ++update) {
    std::vector<std::uint64_t> images;
    gather(source->next(), &images);
    ASSERT_EQ(images.size(), 8U);
    for (std::uint64_t i = 0; i < 8; ++i)
      EXPECT_EQ(images[i], sampler.image(static_cast<std::uint64_t>(update) * 8 + i));
  }
  EXPECT_EQ(source->bad_images(), 0);
}

TEST_F(LoaderMpi, GroupsHoldNormalisedCrops) {
  write();
  const auto source = source_at(0);
  const auto& batch = source->next();
  ASSERT_EQ(batch.groups.size(), 2U);
  EXPECT_EQ(batch.groups[0].images.shape, (device::Shape{2 * batch.images, 16, 16, 3}));
  EXPECT_EQ(batch.groups[1].images.shape, (device::Shape{3 * batch.images, 8, 8, 3}));
  EXPECT_EQ(batch.groups[1].first_crop, 2);
  for (const auto& group : batch.groups)
    for (std::int64_t i = 0; i < group.images.elems(); ++i) {
      ASSERT_GE(group.images.f32()[i], -2.2F);
      ASSERT_LE(group.images.f32()[i], 2.7F);
    }
  EXPECT_GT(source->bytes_held(), batch.groups[0].images.bytes());
}

TEST_F(LoaderMpi, HoldsNoMoreThanPlannedWithTheLargestImageOfTheShards) {
  write();
  auto data = DataSet::open(config_.data.shards, world_);
  std::uint64_t largest = 0;
  for (std::uint32_t s = 0; s < data.shards().size(); ++s) {
    const auto& shard = data.shards()[s];
    std::vector<std::uint32_t> widths(shard.images), heights(shard.images);
    data.read(s, shard.width_offset, 4 * shard.images, widths.data());
    data.read(s, shard.height_offset, 4 * shard.images, heights.data());
    for (std::uint64_t i = 0; i < shard.images; ++i) largest = std::max(largest, std::uint64_t{widths[i]} * heights[i]);
  }
  const auto pixels = largest_image_pixels(config_, data, world_);
  EXPECT_EQ(pixels, static_cast<std::int64_t>(largest));
  auto stricter = config_;
  stricter.data.max_pixels = pixels - 1;
  EXPECT_LT(largest_image_pixels(stricter, data, world_), pixels) << "never decoded";
  const Readers readers{.image_pixels = pixels, .images = static_cast<std::int64_t>(data.images())};
  const auto source = open_source(config_, world_, Start{}, nullptr, std::move(data));
  for (int update = 0; update < 10; ++update) source->next();
  const auto planned = loader_bytes(config_, 8 / world_.size(), readers);
  EXPECT_LE(source->bytes_held(), planned);
  auto more = config_;
  more.data.reader_threads = 3;
  EXPECT_GE(loader_bytes(more, 8 / world_.size(), readers), planned + 3 * pixels);
}

TEST_F(LoaderMpi, BadImagesAreReplacedAlikeOnAnyRankCount) {
  const std::set<std::uint64_t> bad = {0, 7, 8, 29, 30, 31, 44};
  write(bad);
  if (world_.is_root()) std::filesystem::create_directory(config_.log.run_dir);
  world_.barrier();
  EXPECT_EQ(checksums(0, 13), checksums_alone(0, 13, 1));
  // The replacement of an image is drawn from (seed, position, attempt).
  const auto source = source_at(0);
  const Sampler sampler(kImages, 3, 8, 2);
  std::int64_t replaced = 0, wanted = 0;
  for (std::uint64_t update = 0; update < 13; ++update) {
    const auto& batch = source->next();
    std::vector<std::uint64_t> images;
    gather(batch, &images);
    replaced += world_.all_reduce(batch.replaced, comm::Op::sum);
    for (std::uint64_t i = 0; i < 8; ++i) {
      auto expected = sampler.image(update * 8 + i);
      if (bad.count(expected) != 0) ++wanted;
      for (std::uint32_t attempt = 0; bad.count(expected) != 0; ++attempt)
        expected = Random(3, Purpose::replacement, update * 8 + i, attempt).below(kImages);
      EXPECT_EQ(images[i], expected);
    }
  }
  EXPECT_GT(wanted, 7);  // a little more than two epochs
  EXPECT_EQ(replaced, wanted);
  EXPECT_GE(world_.all_reduce(source->bad_images(), comm::Op::sum), wanted);
  world_.barrier();
  std::ifstream rejects(config_.log.run_dir + "/rejects.jsonl");
  std::string line, text;
  while (std::getline(rejects, line)) text += line + "\n";
  for (const auto index : bad) EXPECT_NE(text.find(fmt::format("\"image\":{},", index)), std::string::npos) << index;
}

// The targets of a batch are those of its images, also of images that replace bad ones.
TEST_F(LoaderMpi, BatchesCarryTargets) {
  write({0, 7, 30});
  const auto source = source_at(0, Labels::read);
  std::int64_t replaced = 0;
  for (int update = 0; update < 13; ++update) {
    const auto& batch = source->next();
    replaced += batch.replaced;
    ASSERT_EQ(batch.targets.images(), batch.positions.size());
    for (std::size_t i = 0; i < batch.positions.size(); ++i) {
      ASSERT_EQ(batch.targets.of(i).size(), 1U);
      EXPECT_EQ(batch.targets.of(i)[0], static_cast<std::int32_t>(batch.positions[i] % 3));
    }
  }
  EXPECT_GT(world_.all_reduce(replaced, comm::Op::sum), 0);
}

// A damaged label stops only sources that read labels.
TEST_F(LoaderMpi, LabelsAreReadOnlyForThoseWhoWantThem) {
  write();
  if (world_.is_root()) {
    auto file = h5::File::open(folder_ / "shard-30.h5", nullptr, true);
    const std::vector<std::int32_t> labels(30, 7);  // there are three classes
    file.write("/images/label", h5::Type::i32, 0, labels.size(), labels.data());
    file.close();
  }
  world_.barrier();
  const auto without = source_at(0);
  for (int update = 0; update < 13; ++update) {
    const auto& targets = without->next().targets;
    EXPECT_EQ(targets.images(), static_cast<std::size_t>(8 / world_.size()));
    EXPECT_TRUE(targets.values.empty());
  }
  const auto with = source_at(0, Labels::read);
  EXPECT_THROW(
      {
        for (int update = 0; update < 13; ++update) with->next();
      },
      Error);
}

// Two tables have crops of one size, and the second overrides [augment]. The override changes only its own crops.
TEST_F(LoaderMpi, ATableOfCropsMayHaveItsOwnAugmentation) {
  write();
  config_.crops = {{1, 16, {0.14, 1.0}}, {1, 16, {0.14, 1.0}}};
  const auto crops = [&] {
    const auto source = source_at(0);
    const auto& group = source->next().groups.at(0);
    EXPECT_EQ(group.count, 2);
    const float* values = group.images.f32();
    const auto half = group.images.elems() / 2;
    return std::pair(std::vector<float>(values, values + half), std::vector<float>(values + half, values + 2 * half));
  };
  const auto same = crops();
  config_.crops[1].augment = config_.augment;
  EXPECT_EQ(crops(), same);
  config_.crops[1].augment->grey_probability = 1;
  const auto other = crops();
  EXPECT_EQ(other.first, same.first);
  EXPECT_NE(other.second, same.second);
  const auto& mean = config_.augment.mean;
  const auto& std = config_.augment.std;
  for (std::size_t i = 0; i < other.second.size(); i += 3) {  // grey: one value in three channels
    const auto level = [&](std::size_t c) { return static_cast<double>(other.second[i + c]) * std[c] + mean[c]; };
    ASSERT_NEAR(level(0), level(1), 1e-5);
    ASSERT_NEAR(level(0), level(2), 1e-5);
  }
}

TEST_F(LoaderMpi, FailPolicyThrowsAtTheUpdateOfTheBadImage) {
  const Sampler sampler(kImages, 3, 8, 2);
  const std::uint64_t bad = sampler.image(2 * 8 + 5);  // in update 2, of the rank that owns slot 5
  write({bad});
  config_.data.bad_image_policy = "fail";
  const auto source = source_at(0);
  source->next();
  source->next();
  const bool mine = 5 / (8 / world_.size()) == world_.rank();
  if (!mine) {
    EXPECT_NO_THROW(source->next());
    return;
  }
  try {
    source->next();
    FAIL() << "a bad image went through";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file);
    EXPECT_NE(std::string(error.what()).find(fmt::format("image {}", bad < 30 ? bad : bad - 30)), std::string::npos)
        << error.what();
  }
}

TEST_F(LoaderMpi, AllImagesBadIsAnErrorNotALoop) {
  std::set<std::uint64_t> all;
  for (std::uint64_t i = 0; i < kImages; ++i) all.insert(i);
  write(all);
  const auto source = source_at(0);
  EXPECT_THROW(source->next(), Error);
}

TEST_F(LoaderMpi, BatchThatRanksDoNotDivideIsAnInputError) {
  write();
  config_.data.global_batch = 8 * world_.size() + (world_.size() > 1 ? 1 : 0);
  if (world_.size() == 1) config_.data.global_batch = 0;
  try {
    source_at(0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(error.message().find("global_batch"), std::string::npos);
  }
}

TEST_F(LoaderMpi, StopsWithWorkUnderWay) {
  write();
  config_.data.prefetch_batches = 6;
  for (int i = 0; i < 20; ++i) {
    const auto source = source_at(i);
    if (i % 2 == 0) source->next();
  }
}

TEST_F(LoaderMpi, AFractionIsReadAloneAndInItsOwnOrder) {
  write();
  const auto whole = DataSet::open(folder_.path(), world_);
  config_.data.per_class = 4;
  config_.data.subset_seed = 2;
  const auto few = subset_of(whole, subset_choice(config_.data), world_);
  const auto source = source_at(0, Labels::read);
  ASSERT_EQ(source->images(), 12U);
  const Sampler sampler(12, 3, 8, 2);
  std::map<std::int32_t, int> of_class;
  for (std::uint64_t update = 0; update < 3; ++update) {
    std::vector<std::uint64_t> images;
    const auto& batch = source->next();
    gather(batch, &images);
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(images[i], sampler.image(8 * update + i));
    for (std::size_t i = 0; i < batch.positions.size(); ++i) {
      ASSERT_EQ(batch.targets.of(i).size(), 1U);
      EXPECT_EQ(batch.targets.of(i)[0], few.labels(batch.positions[i], 1)[0]);
    }
    for (const auto image : images) ++of_class[few.labels(image, 1)[0]];
  }
  EXPECT_EQ(of_class, (std::map<std::int32_t, int>{{0, 8}, {1, 8}, {2, 8}}));  // two epochs
  config_.data.per_class = 1;
  try {
    source_at(0);
    EXPECT_LE(world_.size(), 3);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(std::string(e.what()).find("1 images of each class leaves 3 images of 50 for 4 ranks"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace seer::data
