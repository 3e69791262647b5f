// SPDX-License-Identifier: Apache-2.0
// Staging and double buffering without a device. Some tests check that the others would notice a fault.
#include "../../src/data/device_feed.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "device_support.hpp"
#include "seer/base/random.hpp"
#include "seer/data/source.hpp"
#include "slow_lanes.hpp"

namespace seer::data {
namespace {

using test::SlowLanes;
using test::TwoLanes;

constexpr std::int64_t kImages = 3;

config::Config config_of(std::int64_t staging_pixels) {
  config::Config config;
  config.crops = {{2, 24, {0.14, 1.0}}, {3, 16, {0.05, 0.14}}};
  config.data.staging_pixels = staging_pixels;
  return config;
}

Image picture(std::int64_t width, std::int64_t height, std::uint64_t seed) {
  Random random(seed, Purpose::test);
  Image image{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height))};
  for (auto& x : image.rgb) x = static_cast<std::uint8_t>(random.bits() >> 24);
  return image;
}

Image picture_of(std::int64_t update, std::int64_t image) {
  return picture(60 + 20 * image, 50 + 10 * (update % 4), static_cast<std::uint64_t>(10 * update + image));
}

std::vector<CropPlan> plans_of(const config::Config& config, const Image& image, std::int64_t update,
                               std::int64_t number) {
  std::vector<CropPlan> plans;
  for (const auto& kind : crop_kinds(config))
    plans.push_back(plan_crop(kind, image.width, image.height, 7, static_cast<std::uint64_t>(update * kImages + number),
                              static_cast<std::uint32_t>(plans.size())));
  return plans;
}

void stage(const config::Config& config, std::int64_t update, Staging& staging) {
  AugmentScratch scratch;
  staging.start();
  for (std::int64_t i = 0; i < kImages; ++i) {
    const auto image = picture_of(update, i);
    staging.add(i, image, plans_of(config, image, update, i), scratch);
  }
}

/// The batch as the host's loader makes it: group after group.
std::vector<float> made_on_host(const config::Config& config, std::int64_t update) {
  std::vector<float> all;
  AugmentScratch scratch;
  for (const auto& group : crop_groups(config.crops, kImages)) {
    for (int c = 0; c < group.count; ++c) {
      for (std::int64_t i = 0; i < kImages; ++i) {
        const auto image = picture_of(update, i);
        const auto plans = plans_of(config, image, update, i);
        std::vector<float> crop(static_cast<std::size_t>(3 * group.size * group.size));
        const auto number = static_cast<std::size_t>(group.first_crop + c);
        apply_crop(image, plans[number], crop_kinds(config)[number], scratch, crop.data());
        all.insert(all.end(), crop.begin(), crop.end());
      }
    }
  }
  return all;
}

std::vector<float> values_of(const Batch& batch) {
  std::vector<float> all;
  for (const auto& group : batch.groups)
    all.insert(all.end(), group.images.f32(), group.images.f32() + group.images.elems());
  return all;
}

/// Makes ten batches with the calls in the loader's order. Returns how many of them the main queue found wrong.
int wrong_batches(TwoLanes::Late late, SlowLanes::Fault fault, DeviceFeed::Places places = DeviceFeed::Places::shared) {
  const auto config = config_of(6000);
  TwoLanes lanes(late);
  DeviceFeed feed(config, kImages, 2, places, std::make_unique<SlowLanes>(lanes, fault));
  int wrong = 0;
  Batch about;
  for (about.update = 0; about.update < 10; ++about.update) {
    feed.settle();
    feed.hand_back();
    if (!feed.ahead()) {
      stage(config, about.update, feed.staging(0));
      feed.make(0, about);
    }
    const Batch& batch = feed.lend();
    lanes.hand_main(
        [&wrong, &batch, wanted = made_on_host(config, about.update)] { wrong += values_of(batch) != wanted ? 1 : 0; });
    feed.settle();
    stage(config, about.update + 1, feed.staging(0));
    Batch next;
    next.update = about.update + 1;
    feed.make(0, next);
  }
  lanes.wait_for_all();
  return wrong;
}

class DeviceFeedTest : public testing::Test {
 protected:
  // Staging uses pinned memory. A device build needs a device to allocate it.
  void SetUp() override {
#if defined(SEER_CUDA)
    SEER_NEEDS_DEVICE();
#endif
  }
};

TEST_F(DeviceFeedTest, BatchesAreRightHoweverLateAQueueIs) {
  for (const auto late : {TwoLanes::Late::main, TwoLanes::Late::side}) {
    EXPECT_EQ(wrong_batches(late, SlowLanes::Fault::none), 0);
    EXPECT_EQ(wrong_batches(late, SlowLanes::Fault::none, DeviceFeed::Places::apart), 0);
  }
}

TEST_F(DeviceFeedTest, TheseTestsSeeABufferUsedTooEarly) {
  EXPECT_GT(wrong_batches(TwoLanes::Late::main, SlowLanes::Fault::side_does_not_follow), 0);
  EXPECT_GT(wrong_batches(TwoLanes::Late::side, SlowLanes::Fault::main_does_not_follow), 0);
  EXPECT_GT(wrong_batches(TwoLanes::Late::side, SlowLanes::Fault::nobody_waits), 0);
}

TEST_F(DeviceFeedTest, LargeImagesGoAsCropsWithTheSamePixels) {
  std::int64_t as_crops = 0;
  for (const std::int64_t pixels : {1, 3000, 5000, 100000}) {
    const auto config = config_of(pixels);
    TwoLanes lanes(TwoLanes::Late::side);
    DeviceFeed feed(config, kImages, 1, DeviceFeed::Places::shared, std::make_unique<SlowLanes>(lanes));
    for (std::int64_t update = 0; update < 3; ++update) {
      stage(config, update, feed.staging(0));
      as_crops += feed.staging(0).images_as_crops();
      if (pixels == 1) {
        EXPECT_EQ(feed.staging(0).images_as_crops(), kImages);
      }
      if (pixels == 100000) {
        EXPECT_EQ(feed.staging(0).images_as_crops(), 0);
      }
      feed.make(0, {});
      const Batch& batch = feed.lend();
      lanes.wait_for_all();
      EXPECT_TRUE(values_of(batch) == made_on_host(config, update)) << pixels;
      feed.hand_back();
    }
    EXPECT_EQ(feed.pinned_bytes(), feed.plan().bytes());
  }
  EXPECT_GT(as_crops, 9);  // more than the nine where nothing fits
}

TEST_F(DeviceFeedTest, CropsOfRandAugmentAndErasedOnesAreTheHosts) {
  auto config = config_of(100000);
  config.augment.randaugment_ops = 1;  // so that some images need no host
  config.augment.erase_probability = 0.5;
  config.crops.pop_back();
  TwoLanes lanes(TwoLanes::Late::side);
  DeviceFeed feed(config, kImages, 1, DeviceFeed::Places::shared, std::make_unique<SlowLanes>(lanes));
  std::int64_t as_crops = 0;
  for (std::int64_t update = 0; update < 8; ++update) {
    stage(config, update, feed.staging(0));
    as_crops += feed.staging(0).images_as_crops();
    feed.make(0, {});
    const Batch& batch = feed.lend();
    lanes.wait_for_all();
    EXPECT_TRUE(values_of(batch) == made_on_host(config, update));
    feed.hand_back();
    for (std::int64_t i = 0; i < kImages; ++i) {
      const auto image = picture_of(update, i);
      const auto plans = plans_of(config, image, update, i);
      const bool host = plans[0].step_count + plans[1].step_count > 0;
      Staging staging(feed.plan());
      EXPECT_EQ(staging.claim(i, image.width, image.height, plans).has_value(), !host);
      as_crops -= host ? 1 : 0;
    }
  }
  EXPECT_EQ(as_crops, 0);
}

TEST_F(DeviceFeedTest, StagingTakesAnythingInItsMemory) {
  // Long lines, single pixels and images of all sizes, in any order. There must always be room for an image's crops.
  Random random(3, Purpose::test);
  const auto config = config_of(900);
  const StagingPlan plan(config, kImages);
  Staging staging(plan);
  AugmentScratch scratch;
  for (std::int64_t round = 0; round < 200; ++round) {
    staging.start();
    std::int64_t claimed = plan.bytes();
    for (std::int64_t i = 0; i < kImages; ++i) {
      const auto side = [&random] {
        return static_cast<std::int64_t>(1 + random.below(random.below(9) == 0 ? 600 : 60));
      };
      const auto image = picture(side(), side(), static_cast<std::uint64_t>(round));
      const auto plans = plans_of(config, image, round, i);
      if (random.below(3) == 0) {
        const auto place = staging.claim(i, image.width, image.height, plans);
        if (place) {
          EXPECT_LE(*place + 3 * image.width * image.height, claimed);
          claimed = *place;
          if (random.below(2) == 0) continue;  // else its decoding failed
        }
      }
      staging.add(i, image, plans, scratch);
    }
    EXPECT_LE(static_cast<std::int64_t>(staging.bytes()), claimed);
    const auto rooms = staging.finish();
    for (std::size_t g = 0; g < plan.groups.size(); ++g) {
      const auto& group = plan.groups[g];
      EXPECT_LE(kernels::crop_scratch_bytes(group.crops, group.size, rooms[g]),
                static_cast<std::size_t>(plan.scratch_bytes));
    }
  }
}

TEST_F(DeviceFeedTest, TellsItsMemoryBeforeItTakesIt) {
  auto config = config_of(2000);
  config.data.prefetch_batches = 3;
  for (const char* decode : {"host", "auto"}) {
    config.data.decode = decode;
    const auto places = config.data.decode == "auto" ? DeviceFeed::Places::apart : DeviceFeed::Places::shared;
    TwoLanes lanes(TwoLanes::Late::side);
    const DeviceFeed feed(config, kImages, 4, places, std::make_unique<SlowLanes>(lanes));
    const auto told = feed_bytes(config, kImages);
    EXPECT_EQ(told.pinned, feed.pinned_bytes());
    EXPECT_EQ(told.device, feed.device_bytes());
  }
}

}  // namespace
}  // namespace seer::data
