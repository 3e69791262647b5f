// SPDX-License-Identifier: Apache-2.0
// Figures without labels are the same on any number of ranks as on one rank that holds all rows, up to rounding.
#include "seer/eval/quality.hpp"

#include <algorithm>
#include <limits>

#include "../support.hpp"
#include "nn/support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr std::int64_t kDimension = 19, kViews = 4;

Quality measure(const comm::Communicator& comm, std::uint64_t images, const std::vector<float>& rows,
                const std::vector<float>& views) {
  const auto begin = slice_begin(images, comm.rank(), comm.size()),
             end = slice_begin(images, comm.rank() + 1, comm.size());
  QualityMeter meter(kDimension, images, {.uniformity_images = 20});
  constexpr std::uint64_t d = kDimension, kBatch = 3;
  for (auto first = begin; first < end; first += kBatch) {
    const auto n = std::min(kBatch, end - first);
    std::vector<std::uint8_t> bad(n, 0);
    for (std::uint64_t i = 0; i < n; ++i) bad[i] = first + i == 5 ? 1 : 0;
    meter.add(std::span(rows).subspan(first * d, n * d), bad, first);
    meter.add_views(std::span(views).subspan(first * d * kViews, n * d * kViews), bad, kViews);
  }
  return meter.result(comm);
}

TEST(QualityMpi, EqualsOneRank) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  for (const std::uint64_t images : {7, 50, 64}) {
    const auto rows = test::hash_fill(images * kDimension, 11, 1.0);
    const auto views = test::hash_fill(images * kDimension * kViews, 12, 1.0);
    const auto shared = measure(world, images, rows, views), whole = measure(alone, images, rows, views);
    const auto near = [](double a, double b) { EXPECT_NEAR(a, b, 1e-9 * std::abs(b)); };
    near(shared.rankme, whole.rankme);
    near(shared.rankme_centred, whole.rankme_centred);
    near(shared.alpha, whole.alpha);
    near(shared.deviation, whole.deviation);
    near(shared.lidar, whole.lidar);
    near(shared.alignment, whole.alignment);
    EXPECT_NEAR(shared.uniformity, whole.uniformity, 1e-6) << "float products";
    EXPECT_EQ(shared.images, static_cast<std::int64_t>(images - 1));
    EXPECT_EQ(shared.view_images, whole.view_images);
    EXPECT_EQ(shared.uniformity_images, whole.uniformity_images);
    for (const auto& figures : world.all_gather(std::to_string(shared.rankme) + " " + std::to_string(shared.lidar)))
      EXPECT_EQ(figures, std::to_string(shared.rankme) + " " + std::to_string(shared.lidar)) << "the same on all ranks";
  }
}

TEST(QualityMpi, ViewsAreTheCropsOfTheTraining) {
  const auto world = comm::Communicator::world(), alone = world.split(world.rank());
  const test::ShardFolder folder(world, 5, 2);
  const auto data = data::DataSet::open(folder.path(), alone);
  data::EvalOptions options;
  options.batch = 2;
  options.normalisation.mean = {0.1, 0.2, 0.3};
  options.views = {3, {.size = 20, .scale_low = 0.2, .scale_high = 0.9}, 7};
  data::EvalReader reader(data, 0, 5, options);
  data::Image image;
  data::AugmentScratch scratch;
  std::vector<float> wanted(20 * 20 * 3);
  auto kind = options.views.kind;
  kind.augment.mean = options.normalisation.mean;
  std::int64_t images = 0;
  while (const auto* batch = reader.next()) {
    ASSERT_EQ(batch->pixels.shape, (device::Shape{3 * batch->images, 20, 20, 3}));
    images += batch->images;
    for (std::int64_t i = 0; i < batch->images; ++i) {
      const auto index = batch->indices[static_cast<std::size_t>(i)];
      std::vector<std::uint8_t> bytes;
      data.read_image(index, bytes);
      data::decode(bytes, 1000000, image);
      for (std::uint32_t v = 0; v < 3; ++v) {
        data::apply_crop(image, data::plan_crop(kind, image.width, image.height, 7, index, v), kind, scratch,
                         wanted.data());
        const auto* found = batch->pixels.slice(3 * i + v, 1).f32();
        EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), found)) << "image " << index << ", view " << v;
      }
    }
  }
  EXPECT_EQ(images, 5);
}

TEST(QualityMpi, OfANetworkIsTheSameOnAnyNumberOfRanks) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  const test::ShardFolder folder(world, 30, 2, 9);
  config::Model model;
  model.preset = "tiny";
  const config::Head head = {.dims = {64, 24, 16}, .batchnorm = false, .prototypes = 0};
  FeatureExtractor extractor(model, head, 3, parse_features("trunk,head"), "host");
  data::EvalOptions reading;
  reading.resize = 36;
  reading.crop = 32;
  reading.batch = 4;
  const auto figures = [&](const comm::Communicator& comm, PrototypeMeter& prototypes) {
    const auto data = data::DataSet::open(folder.path(), comm), images = evenly(data, 20);
    return measure_quality(comm, extractor, images, evenly(images, 8), reading, {2, {.size = 32}, 0},
                           {{.lidar = false}, {}}, &prototypes);
  };
  const std::vector<float> weights = test::hash_fill(5 * 16, 4, 1.0);
  PrototypeMeter of_world(weights, 5), of_one(weights, 5);
  const auto shared = figures(world, of_world), whole = figures(alone, of_one);
  ASSERT_EQ(shared.size(), 2U);
  for (std::size_t f = 0; f < 2; ++f) {
    const auto near = [](double a, double b) { EXPECT_NEAR(a, b, 1e-4 * std::abs(b)); };
    near(shared[f].rankme, whole[f].rankme);
    near(shared[f].alignment, whole[f].alignment);
    near(shared[f].uniformity, whole[f].uniformity);
    EXPECT_EQ(shared[f].images, whole[f].images);
    EXPECT_EQ(shared[f].view_images, whole[f].view_images);
    EXPECT_EQ(shared[f].views, 2);
    EXPECT_EQ(std::isnan(shared[f].lidar), f == 0) << "not asked for";
  }
  EXPECT_NEAR(shared[1].lidar, whole[1].lidar, 1e-3 * whole[1].lidar);
  EXPECT_EQ(of_world.result(world).images, shared[1].images);
  EXPECT_EQ(of_world.result(world).entropy, of_one.result(alone).entropy);
}

TEST(QualityMpi, FewerImagesThanRanksAreRefused) {
  const auto world = comm::Communicator::world();
  const auto images = static_cast<std::uint64_t>(world.size() - 1);
  if (images == 0) GTEST_SKIP() << "needs several ranks";
  const auto rows = test::hash_fill(images * kDimension, 1, 1.0),
             views = test::hash_fill(images * kDimension * kViews, 2, 1.0);
  try {
    measure(world, images, rows, views);
    ADD_FAILURE() << "too few images were taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_TRUE(error.agreed());
  }
}

TEST(PrototypesMpi, AreCountedOverAllRanks) {
  const auto world = comm::Communicator::world();
  PrototypeMeter meter({1, 0, 0, 1, -1, -1}, 3);
  const std::vector<float> row = {static_cast<float>(world.rank() == 0),
                                  0.5F};  // rank 0: the first; others: the second
  meter.add(row, std::vector<std::uint8_t>{0});
  const auto usage = meter.result(world);
  EXPECT_EQ(usage.images, world.size());
  EXPECT_EQ(usage.empty, world.size() == 1 ? 2 : 1);
  EXPECT_DOUBLE_EQ(usage.largest_share, std::max(1.0, static_cast<double>(world.size() - 1)) / world.size());
}

}  // namespace
}  // namespace seer::eval
