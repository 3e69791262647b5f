// SPDX-License-Identifier: Apache-2.0
// Compares the loader that makes its batches on a device with the one that makes them on the host: they give the same
// bits, whichever queue is late and whichever side decodes. The queues are lists of work (slow_lanes.hpp); one test
// uses a device if there is one.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <vector>

#include "../slow_lanes.hpp"
#include "../tiny_shards.hpp"
#include "device_support.hpp"
#include "seer/base/error.hpp"
#include "seer/data/source.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::data {
namespace {

using test::SlowLanes;
using test::TwoLanes;

constexpr int kUpdates = 12;

struct Seen {
  std::vector<float> values;
  std::vector<std::uint64_t> positions;
  std::int64_t update = 0, replaced = 0;
  bool operator==(const Seen&) const = default;  // not printed by tests: that would fill pages
};

/// Accepts about every second image and fails on some of them, as a device's decoder may.
class FakeDecoder final : public DeviceDecoder {
 public:
  explicit FakeDecoder(std::atomic<int>& decoded) : decoded_(decoded) {}
  std::optional<Size> takes(std::span<const std::uint8_t> bytes, std::int64_t, std::size_t) override {
    const auto header = read_header(bytes);
    if (header.kind == ImageKind::unknown || header.width % 2 == 0) return std::nullopt;
    return Size{header.width, header.height};
  }
  void decode(std::span<Job> jobs) override {
    EXPECT_FALSE(busy_.exchange(true));
    for (auto& job : jobs) {
      Image image;
      try {
        seer::data::decode(job.bytes, 1 << 20, image);
      } catch (const Error&) {
        continue;  // a bad image
      }
      if (image.height % 5 == 0) continue;
      std::memcpy(job.to, image.rgb.data(), image.rgb.size());
      job.done = true;
      ++decoded_;
    }
    busy_ = false;
  }

 private:
  std::atomic<int>& decoded_;
  std::atomic<bool> busy_{false};
};

class DeviceLoaderMpi : public testing::Test {
 protected:
  DeviceLoaderMpi() : world_(comm::Communicator::world()), folder_(&world_) {
    config_.crops = {{2, 8, {0.14, 1.0}}, {3, 6, {0.05, 0.14}}};  // as crops they take less than whole
    config_.data.shards = folder_.path();
    config_.data.global_batch = 8;
    config_.data.block_images = 8;
    config_.data.window_blocks = 2;
    config_.data.seed = 3;
    config_.log.run_dir = folder_ / "run";
  }
  // Staging uses pinned memory. A device build needs a device to allocate it.
  void SetUp() override {
#if defined(SEER_CUDA)
    SEER_NEEDS_DEVICE();
#endif
  }
  void write(const std::set<std::uint64_t>& bad = {}) {
    if (world_.is_root()) test::write_tiny_shards(folder_, bad);
    world_.barrier();
  }
  std::unique_ptr<ShardLoader> loader(std::shared_ptr<DeviceParts> parts) {
    return open_shards(config_, DataSet::open(config_.data.shards, world_), world_.rank(), world_.size(), 2, {},
                       Labels::ignore, std::move(parts));
  }
  static Seen about(const Batch& batch) {
    return {{}, batch.positions, batch.update, batch.replaced};
  }
  static void look(const Batch& batch, std::vector<float>& values) {
    for (const auto& group : batch.groups)
      values.insert(values.end(), group.images.f32(), group.images.f32() + group.images.elems());
  }

  std::vector<Seen> on_host() {
    const auto source = loader(nullptr);
    std::vector<Seen> seen;
    for (int u = 0; u < kUpdates; ++u) {
      const Batch& batch = source->next();
      seen.push_back(about(batch));
      look(batch, seen.back().values);
    }
    return seen;
  }
  /// The same, read by work on the main queue.
  std::vector<Seen> on_lanes(TwoLanes::Late late, SlowLanes::Fault fault = SlowLanes::Fault::none,
                             std::atomic<int>* decoded = nullptr) {
    TwoLanes lanes(late);
    auto parts = std::make_shared<DeviceParts>();
    parts->lanes = std::make_unique<SlowLanes>(lanes, fault);
    if (decoded != nullptr) parts->decoder = std::make_unique<FakeDecoder>(*decoded);
    const auto source = loader(std::move(parts));
    std::vector<Seen> seen(kUpdates);
    for (auto& one : seen) {
      const Batch& batch = source->next();
      one = about(batch);
      lanes.hand_main([&one, &batch] { look(batch, one.values); });
    }
    lanes.wait_for_all();
    as_crops_ = source->images_as_crops();
    return seen;
  }

  comm::Communicator world_;
  test::TemporaryFolder folder_;
  config::Config config_;
  std::int64_t as_crops_ = 0;
};

TEST_F(DeviceLoaderMpi, SameBatchesWhicheverQueueIsLate) {
  write();
  const auto wanted = on_host();
  for (const auto late : {TwoLanes::Late::main, TwoLanes::Late::side}) {
    for (const std::int64_t pixels : {1048576, 450, 1}) {
      config_.data.staging_pixels = pixels;
      EXPECT_TRUE(on_lanes(late) == wanted);
      if (pixels == 1) {
        EXPECT_GT(as_crops_, 0);
      }
      if (pixels == 1048576) {
        EXPECT_EQ(as_crops_, 0);
      }
    }
  }
}

TEST_F(DeviceLoaderMpi, ABatchWrittenOverTooEarlyIsNoticed) {
  write();
  const auto wanted = on_host();
  EXPECT_FALSE(on_lanes(TwoLanes::Late::main, SlowLanes::Fault::side_does_not_follow) == wanted);
}

TEST_F(DeviceLoaderMpi, BadImagesAreReplacedAlike) {
  write({0, 7, 8, 29, 30, 31, 44});
  const auto wanted = on_host();
  EXPECT_TRUE(on_lanes(TwoLanes::Late::main) == wanted);
  std::atomic<int> decoded{0};
  EXPECT_TRUE(on_lanes(TwoLanes::Late::side, SlowLanes::Fault::none, &decoded) == wanted);
  EXPECT_GT(decoded, 0);
}

TEST_F(DeviceLoaderMpi, ImagesThatTheDeviceDecodesLieWhereTheOthersDo) {
  write();
  const auto wanted = on_host();
  for (const std::int64_t pixels : {1048576, 450}) {
    config_.data.staging_pixels = pixels;
    for (const auto late : {TwoLanes::Late::main, TwoLanes::Late::side}) {
      std::atomic<int> decoded{0};
      EXPECT_TRUE(on_lanes(late, SlowLanes::Fault::none, &decoded) == wanted);
      // The decoder accepts about half of the 96 images and decodes four fifths of those; perhaps none if room is
      // small.
      if (pixels > 450) {
        EXPECT_GT(world_.all_reduce(std::int64_t{decoded}, comm::Op::sum), 20);
      }
    }
  }
}

TEST_F(DeviceLoaderMpi, FailPolicyThrowsAtTheUpdateOfTheBadImage) {
  const Sampler sampler(test::kTinyImages, 3, 8, 2);
  write({sampler.image(2 * 8 + 5)});  // in update 2, of the rank that owns slot 5
  config_.data.bad_image_policy = "fail";
  TwoLanes lanes(TwoLanes::Late::side);
  auto parts = std::make_shared<DeviceParts>();
  parts->lanes = std::make_unique<SlowLanes>(lanes);
  const auto source = loader(std::move(parts));
  source->next();
  source->next();
  if (5 / (8 / world_.size()) == world_.rank()) {
    EXPECT_THROW(source->next(), Error);
  } else {
    EXPECT_NO_THROW(source->next());
  }
  lanes.wait_for_all();
}

TEST_F(DeviceLoaderMpi, StopsWithWorkUnderWay) {
  write();
  for (int i = 0; i < 12; ++i) {
    TwoLanes lanes(i % 2 == 0 ? TwoLanes::Late::side : TwoLanes::Late::main);
    auto parts = std::make_shared<DeviceParts>();
    parts->lanes = std::make_unique<SlowLanes>(lanes);
    const auto source = loader(std::move(parts));
    for (int u = 0; u < i % 4; ++u) source->next();
  }
}

/// Batches, copied back by the queue that uses them. A host build has a stand-in for the device.
TEST_F(DeviceLoaderMpi, SameBatchesOnADevice) {
#if !defined(SEER_CUDA)
  const device::StandIn stand_in;
#elif !defined(SEER_KERNELS_CUDA)
  GTEST_SKIP() << "not run: the Kokkos of this build has no Cuda, so its kernels are the host's";
#endif
  write({7, 30});
  const auto wanted = on_host();
  for (const std::int64_t pixels : {1048576, 450}) {
    config_.data.staging_pixels = pixels;
    device::DeviceQueue compute;
    const auto source = open_source(config_, world_, Start{}, &compute);
    std::vector<Seen> seen(kUpdates);
    for (auto& one : seen) {
      const Batch& batch = source->next();
      one = about(batch);
      for (const auto& group : batch.groups) {
        ASSERT_EQ(group.images.space, device::Space::device);
        const auto old = one.values.size();
        one.values.resize(old + static_cast<std::size_t>(group.images.elems()));
        device::copy(compute.queue(), group.images.data, device::Space::device, one.values.data() + old,
                     device::Space::host, static_cast<std::size_t>(group.images.bytes()));
      }
    }
    compute.queue().wait();
    EXPECT_TRUE(seen == wanted);
    EXPECT_GT(source->device_bytes_held(), 0);
  }
}

}  // namespace
}  // namespace seer::data
