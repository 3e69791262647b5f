// SPDX-License-Identifier: Apache-2.0
#include "device_feed.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/region.hpp"

namespace seer::data {
namespace {

constexpr std::int64_t kOut = 2;      // batches on the device
constexpr std::int64_t kAlign = 256;  // bytes

/// Whether the host must make these crops.
bool needs_host(std::span<const CropPlan> plans) {
  return std::ranges::any_of(plans, [](const CropPlan& plan) { return plan.step_count > 0; });
}

/// Scratch bytes that a crop takes because of its box.
std::int64_t scratch_of(const kernels::Box& box, std::int64_t size) {
  const auto room = kernels::room_of(box, size);
  return 4 * (room.rows * size + room.weights);
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

#if !defined(SEER_NVJPEG)
std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t, std::int64_t, std::string& why_not) {
#if defined(SEER_CUDA)
  why_not = "this build has no nvJPEG (CMake found no nvjpeg.h or libnvjpeg: set NVJPEG_ROOT and build again)";
#else
  why_not = "this is a host build";
#endif
  return nullptr;
}
#endif

std::shared_ptr<DeviceParts> device_parts(const config::Config& config, std::int64_t images_here, std::size_t threads,
                                          device::DeviceQueue& compute) {
  auto parts = std::make_shared<DeviceParts>();
  parts->lanes = std::make_unique<DeviceLanes>(compute);
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
  for (const auto& group : crop_groups(config.crops, images_here))
    bytes.device += kOut * rounded(group.images.bytes(), kAlign);
  return bytes;
}

StagingPlan::StagingPlan(const config::Config& config, std::int64_t images_here)
    : images(images_here), kinds(crop_kinds(config)) {
  std::int64_t rows = 0;
  for (const auto& group : crop_groups(config.crops, images)) {
    const std::int64_t crops = group.count * images;
    groups.push_back({group.size, group.first_crop * images, crops, rows});
    rows += crops + 1;
  }
  jobs_bytes =
      rounded(static_cast<std::int64_t>(kinds.size()) * images * std::int64_t{sizeof(kernels::CropJob)}, kAlign);
  table_bytes = jobs_bytes + rounded(rows * std::int64_t{sizeof(std::int64_t)}, kAlign);
  // Scratch for square images of staging_pixels pixels, with crops that show the whole image.
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(config.data.staging_pixels)));
  Room each{rounded(3 * config.data.staging_pixels, kAlign), 0};
  for (const auto& kind : kinds) {
    each.scratch += scratch_of({0, 0, side, side}, kind.size);
    reserved.pixels += rounded(3 * kind.size * kind.size, kAlign);
    reserved.scratch += scratch_of({0, 0, kind.size, kind.size}, kind.size);
  }
  most = {images * std::max(each.pixels, reserved.pixels), images * std::max(each.scratch, reserved.scratch)};
  for (const auto& group : groups) {
    const auto fixed = static_cast<std::int64_t>(kernels::crop_scratch_bytes(group.crops, group.size, {}));
    scratch_bytes = std::max(scratch_bytes, fixed + most.scratch + 2 * kAlign);
  }
}

StagingPlan::Room StagingPlan::room_of(std::int64_t width, std::int64_t height, std::span<const CropPlan> plans) const {
  Room room{rounded(3 * width * height, kAlign), 0};
  for (std::size_t crop = 0; crop < plans.size(); ++crop) room.scratch += scratch_of(plans[crop].box, kinds[crop].size);
  return room;
}

Staging::Staging(const StagingPlan& plan)
    : plan_(plan), memory_(static_cast<std::size_t>(plan.bytes())), rooms_(plan.groups.size()), waiting_(plan.images) {}

kernels::CropJob& Staging::describe(std::int64_t image, std::size_t crop, const CropPlan& plan, std::int64_t place,
                                    std::int64_t row_bytes) {
  // Rows: crop * images + image. Groups follow one another.
  auto& job = static_cast<kernels::CropJob*>(memory_.data())[static_cast<std::int64_t>(crop) * plan_.images + image];
  job = {};
  job.pixels = place;
  job.row_bytes = row_bytes;
  job.box = plan.box;
  job.flip = plan.flip;
  for (const auto step : plan.order)
    if (plan.jitter && strength_of(plan_.kinds[crop].augment, step) > 0) job.order[job.changes++] = step;
  job.brightness = plan.brightness;
  job.contrast = plan.contrast;
  job.saturation = plan.saturation;
  job.hue = kernels::hue_shift(plan.hue);
  job.grey = plan.grey;
  job.blur = plan.blur && plan.radius > 0;
  if (job.blur) job.blur_box = kernels::blur_box(plan.radius);
  job.erasure = plan.erasure;
  return job;
}

bool Staging::fits(const StagingPlan::Room& room, std::int64_t others) const {
  return front_ + back_ + room.pixels + others * plan_.reserved.pixels <= plan_.most.pixels &&
         scratch_ + room.scratch + others * plan_.reserved.scratch <= plan_.most.scratch;
}

void Staging::add(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch) {
  ensure(plans.size() == plan_.kinds.size(), "staging: a plan for every crop");
  const auto room = plan_.room_of(decoded.width, decoded.height, plans);
  std::unique_lock lock(mutex_);
  const std::int64_t place = plan_.table_bytes + front_;
  const bool whole = fits(room, --waiting_) && !needs_host(plans);
  front_ += whole ? room.pixels : plan_.reserved.pixels;
  scratch_ += whole ? room.scratch : plan_.reserved.scratch;
  as_crops_ += whole ? 0 : 1;
  lock.unlock();
  if (!whole) return add_crops(image, decoded, plans, place, scratch);
  std::memcpy(static_cast<char*>(memory_.data()) + place, decoded.rgb.data(),
              static_cast<std::size_t>(3 * decoded.width * decoded.height));
  for (std::size_t crop = 0; crop < plans.size(); ++crop) describe(image, crop, plans[crop], place, 3 * decoded.width);
}

void Staging::add_crops(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, std::int64_t place,
                        AugmentScratch& scratch) {
  for (std::size_t crop = 0; crop < plans.size(); ++crop) {
    const std::int64_t size = plan_.kinds[crop].size;
    cut_crop(decoded, plans[crop], plan_.kinds[crop], scratch);
    kernels::to_interleaved(scratch.planes, static_cast<std::uint8_t*>(memory_.data()) + place);
    auto& job = describe(image, crop, plans[crop], place, 3 * size);
    job.box = {0, 0, size, size};
    job.flip = kernels::Flip::no;
    place += rounded(3 * size * size, kAlign);
  }
}

std::optional<std::int64_t> Staging::claim(std::int64_t image, std::int64_t width, std::int64_t height,
                                           std::span<const CropPlan> plans) {
  ensure(plans.size() == plan_.kinds.size(), "staging: a plan for every crop");
  if (needs_host(plans)) return std::nullopt;
  const auto room = plan_.room_of(width, height, plans);
  std::unique_lock lock(mutex_);
  // This image's reserve stays free too, since its decoding on the device may fail.
  if (!fits(room, waiting_)) return std::nullopt;
  back_ += room.pixels;
  scratch_ += room.scratch;
  const std::int64_t place = plan_.bytes() - back_;
  lock.unlock();
  for (std::size_t crop = 0; crop < plans.size(); ++crop) describe(image, crop, plans[crop], place, 3 * width);
  return place;
}

std::span<const kernels::CropRoom> Staging::finish() {
  auto* const rows = reinterpret_cast<std::int64_t*>(static_cast<char*>(memory_.data()) + plan_.jobs_bytes);
  for (std::size_t g = 0; g < plan_.groups.size(); ++g) {
    const auto& group = plan_.groups[g];
    rooms_[g] = kernels::lay_out(static_cast<kernels::CropJob*>(memory_.data()) + group.first_job, group.crops,
                                 group.size, rows + group.first_row);
  }
  return rooms_;
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
    out.memory = allocate(out.batch.groups, kAlign, space);
  }
}

void DeviceFeed::hand_back() {
  // The side queue must wait for the main queue before it overwrites the lent batch. This call must be here: later, it
  // would also wait for the training's work on the next batch.
  if (lent_) lanes_->side_follows_main();
  lent_ = false;
}

void DeviceFeed::make(std::size_t slot, const Batch& about) {
  ensure(!ahead_, "at most one batch is made ahead");
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
    std::ranges::copy(floats(augment_.mean), batch.mean);
    std::ranges::copy(floats(augment_.std), batch.std);
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

std::int64_t DeviceFeed::device_bytes() const {
  std::size_t bytes = scratch_.bytes();
  for (const auto& place : places_) bytes += place.bytes();
  for (const auto& out : out_) bytes += out.memory.bytes();
  return static_cast<std::int64_t>(bytes);
}

}  // namespace seer::data
