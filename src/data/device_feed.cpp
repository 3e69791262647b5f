// SPDX-License-Identifier: Apache-2.0
#include "device_feed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/loader.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/region.hpp"

namespace seer::data {
namespace {

constexpr std::int64_t kOut = 2;  // batches on the device

std::int64_t rounded(std::int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

class DeviceLanes final : public Lanes {
 public:
  explicit DeviceLanes(device::DeviceQueue& main) : main_(main) {}
  device::Space space() const override { return device::Space::device; }
  void copy(const void* pinned, void* there, std::size_t bytes) override {
    device::copy(side_.queue(), pinned, device::Space::host, there, device::Space::device, bytes);
  }
  void make(const kernels::CropBatch& batch) override { kernels::make_crops(side_.queue(), batch); }
  void side_follows_main() override { side_.follow(main_.queue()); }
  void main_follows_side() override { main_.follow(side_.queue()); }
  void wait_for_side() override { side_.queue().wait(); }

 private:
  device::DeviceQueue& main_;
  device::DeviceQueue side_;
};

}  // namespace

std::unique_ptr<Lanes> device_lanes(device::DeviceQueue& main) {
  return std::make_unique<DeviceLanes>(main);
}

std::shared_ptr<DeviceParts> device_parts(const config::Config& config, std::int64_t images_here, std::size_t threads,
                                          device::DeviceQueue& compute) {
  auto parts = std::make_shared<DeviceParts>();
  parts->lanes = device_lanes(compute);
  if (config.data.decode == "auto") {
    std::string why_not;
    parts->decoder = make_device_decoder(threads, images_here, why_not);
    log::info(parts->decoder ? "JPEG images are decoded on the device (nvJPEG)"
                             : fmt::format("data.decode = \"auto\": images are decoded on the host: {}", why_not));
  }
  return parts;
}

FeedBytes feed_bytes(const config::Config& config, std::int64_t images_here) {
  const StagingPlan plan(config, images_here);
  const std::int64_t stagings = std::max<std::int64_t>(config.data.prefetch_batches, 1) + 1;
  FeedBytes bytes{stagings * plan.bytes(), plan.bytes() + plan.scratch_bytes};
  if (config.data.decode == "auto") bytes.device += (stagings - 1) * plan.bytes();
  for (const auto& group : crop_groups(config.crops, images_here)) bytes.device += kOut * rounded(group.images.bytes());
  return bytes;
}

DeviceFeed::DeviceFeed(const config::Config& config, std::int64_t images, std::size_t stagings, Places places,
                       std::unique_ptr<Lanes> lanes)
    : plan_(config, images), augment_(config.augment), lanes_(std::move(lanes)) {
  const device::Space space = lanes_->space();
  for (std::size_t i = 0; i < stagings; ++i) stagings_.emplace_back(plan_);
  for (std::size_t i = 0; i < (places == Places::apart ? stagings : 1); ++i)
    places_.emplace_back(static_cast<std::size_t>(plan_.bytes()), space);
  scratch_ = device::Buffer(static_cast<std::size_t>(plan_.scratch_bytes), space);
  for (auto& out : out_) {
    out.batch.images = images;
    out.batch.groups = crop_groups(config.crops, images);
    out.batch.positions.reserve(static_cast<std::size_t>(images));
    std::int64_t bytes = 0;
    for (auto& group : out.batch.groups) bytes += rounded(group.images.bytes());
    out.memory = device::Buffer(static_cast<std::size_t>(bytes), space);
    char* at = static_cast<char*>(out.memory.data());
    for (auto& group : out.batch.groups) {
      group.images.data = at;
      group.images.space = space;
      at += rounded(group.images.bytes());
    }
  }
}

void DeviceFeed::settle() {
  if (unsettled_) lanes_->wait_for_side();
  unsettled_ = false;
}

void DeviceFeed::hand_back() {
  // The side queue must wait for the main queue before it overwrites the lent batch. This call must be here: later, it
  // would also wait for the training's work on the next batch.
  if (lent_) lanes_->side_follows_main();
  lent_ = false;
}

void DeviceFeed::make(std::size_t slot, const Batch& about) {
  ensure(!ahead_, "a batch is made ahead of the one that is");
  const device::Region region("data/make crops");
  Out& out = out_[next_];
  out.batch.update = about.update;
  out.batch.replaced = about.replaced;
  out.batch.positions = about.positions;
  out.batch.targets = about.targets;
  Staging& staging = stagings_[slot];
  const auto rooms = staging.finish();
  char* const there = place(slot);
  unsettled_ = ahead_ = true;
  lanes_->copy(staging.data(), there, staging.bytes());
  for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
    const auto& group = plan_.groups[g];
    kernels::CropBatch batch;
    batch.crops = group.crops;
    batch.size = group.size;
    batch.jobs = reinterpret_cast<const kernels::CropJob*>(there) + group.first_job;
    batch.first = reinterpret_cast<const std::int64_t*>(there + plan_.jobs_bytes) + group.first_row;
    batch.room = rooms[g];
    batch.pixels = reinterpret_cast<const std::uint8_t*>(there);
    batch.scratch = scratch_.data();
    for (std::size_t c = 0; c < 3; ++c) {
      batch.mean[c] = static_cast<float>(augment_.mean[c]);
      batch.std[c] = static_cast<float>(augment_.std[c]);
    }
    batch.out = out.batch.groups[g].images.f32();
    lanes_->make(batch);
  }
}

const Batch& DeviceFeed::lend() {
  ensure(ahead_ && !lent_, "a batch is lent after it was made, and one at a time");
  // This must come before the next batch is submitted to the side queue, or the training would wait for that one too.
  lanes_->main_follows_side();
  ahead_ = false;
  lent_ = true;
  const Batch& batch = out_[next_].batch;
  next_ = 1 - next_;
  return batch;
}

std::int64_t DeviceFeed::pinned_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& staging : stagings_) bytes += staging.pinned_bytes();
  return bytes;
}

std::int64_t DeviceFeed::device_bytes() const {
  std::size_t bytes = scratch_.bytes();
  for (const auto& place : places_) bytes += place.bytes();
  for (const auto& out : out_) bytes += out.memory.bytes();
  return static_cast<std::int64_t>(bytes);
}

}  // namespace seer::data
