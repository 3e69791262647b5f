// SPDX-License-Identifier: Apache-2.0
#include "staging.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/data/loader.hpp"

namespace seer::data {
namespace {

constexpr std::int64_t kAlign = 256;

std::int64_t rounded(std::int64_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

/// Scratch bytes that a crop takes because of its box.
std::int64_t scratch_of(const kernels::Box& box, std::int64_t size) {
  const auto room = kernels::room_of(box, size);
  return 4 * (room.rows * size + room.weights);
}

StagingPlan::Room crops_room(const std::vector<CropKind>& kinds) {
  StagingPlan::Room room;
  for (const auto& kind : kinds) {
    room.pixels += rounded(3 * kind.size * kind.size);
    room.scratch += scratch_of({0, 0, kind.size, kind.size}, kind.size);
  }
  return room;
}

kernels::CropJob job_of(const CropPlan& plan, const config::Augment& augment) {
  kernels::CropJob job;
  job.box = plan.box;
  job.flip = plan.flip;
  if (plan.jitter) {
    for (const Jitter step : plan.order) {
      // As in apply_crop: a configured strength of zero switches a step off.
      const auto add = [&job](double strength, kernels::Colour change) {
        if (strength > 0) job.order[job.changes++] = change;
      };
      if (step == Jitter::brightness) add(augment.brightness, kernels::Colour::brightness);
      if (step == Jitter::contrast) add(augment.contrast, kernels::Colour::contrast);
      if (step == Jitter::saturation) add(augment.saturation, kernels::Colour::saturation);
      if (step == Jitter::hue) add(augment.hue, kernels::Colour::hue);
    }
  }
  job.brightness = plan.brightness;
  job.contrast = plan.contrast;
  job.saturation = plan.saturation;
  job.hue = kernels::hue_shift(plan.hue);
  job.grey = plan.grey;
  job.blur = plan.blur && plan.radius > 0;
  if (job.blur) job.blur_box = kernels::blur_box(plan.radius);
  return job;
}

}  // namespace

StagingPlan::StagingPlan(const config::Config& config, std::int64_t images_here)
    : images(images_here), kinds(crop_kinds(config)), reserved(crops_room(kinds)) {
  std::int64_t rows = 0;
  for (const auto& group : crop_groups(config.crops, images)) {
    const std::int64_t crops = group.count * images;
    groups.push_back({group.size, group.first_crop * images, crops, rows});
    rows += crops + 1;
  }
  jobs_bytes = rounded(static_cast<std::int64_t>(kinds.size()) * images * std::int64_t{sizeof(kernels::CropJob)});
  table_bytes = jobs_bytes + rounded(rows * std::int64_t{sizeof(std::int64_t)});
  // Scratch for square images of staging_pixels pixels, with crops that show the whole image.
  const auto side = static_cast<std::int64_t>(std::sqrt(static_cast<double>(config.data.staging_pixels)));
  Room each{rounded(3 * config.data.staging_pixels), 0};
  for (const auto& kind : kinds) each.scratch += scratch_of({0, 0, side, side}, kind.size);
  most = {images * std::max(each.pixels, reserved.pixels), images * std::max(each.scratch, reserved.scratch)};
  for (const auto& group : groups) {
    const auto fixed = static_cast<std::int64_t>(kernels::crop_scratch_bytes(group.crops, group.size, {}));
    scratch_bytes = std::max(scratch_bytes, fixed + most.scratch + 2 * kAlign);
  }
}

StagingPlan::Room StagingPlan::room_of(std::int64_t width, std::int64_t height, std::span<const CropPlan> plans) const {
  Room room{rounded(3 * width * height), 0};
  for (std::size_t crop = 0; crop < plans.size(); ++crop) room.scratch += scratch_of(plans[crop].box, kinds[crop].size);
  return room;
}

Staging::Staging(const StagingPlan& plan)
    : plan_(plan), memory_(static_cast<std::size_t>(plan.bytes())), rooms_(plan.groups.size()), waiting_(plan.images) {}

void Staging::start() {
  front_ = back_ = scratch_ = as_crops_ = 0;
  waiting_ = plan_.images;
}

kernels::CropJob* Staging::job(std::int64_t image, std::size_t crop) {
  // Row of a batch: crop * images + image. Groups follow one another.
  return static_cast<kernels::CropJob*>(memory_.data()) + static_cast<std::int64_t>(crop) * plan_.images + image;
}

void Staging::describe(std::int64_t image, std::span<const CropPlan> plans, std::int64_t place,
                       std::int64_t row_bytes) {
  for (std::size_t crop = 0; crop < plans.size(); ++crop) {
    auto* const to = job(image, crop);
    *to = job_of(plans[crop], plan_.kinds[crop].augment);
    to->pixels = place;
    to->row_bytes = row_bytes;
  }
}

void Staging::add(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch) {
  ensure(plans.size() == plan_.kinds.size(), "staging: a plan for every crop");
  const auto room = plan_.room_of(decoded.width, decoded.height, plans);
  std::int64_t place = -1;
  {
    std::lock_guard lock(mutex_);
    // Keep the room free that the other images need if they must go as crops.
    const std::int64_t others = waiting_ - 1;
    if (front_ + back_ + room.pixels + others * plan_.reserved.pixels <= plan_.most.pixels &&
        scratch_ + room.scratch + others * plan_.reserved.scratch <= plan_.most.scratch) {
      place = plan_.table_bytes + front_;
      front_ += room.pixels;
      scratch_ += room.scratch;
      --waiting_;
    }
  }
  if (place < 0) return add_crops(image, decoded, plans, scratch);
  std::memcpy(static_cast<char*>(memory_.data()) + place, decoded.rgb.data(),
              static_cast<std::size_t>(3 * decoded.width * decoded.height));
  describe(image, plans, place, 3 * decoded.width);
}

void Staging::add_crops(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans,
                        AugmentScratch& scratch) {
  std::int64_t place = 0;
  {
    std::lock_guard lock(mutex_);
    place = plan_.table_bytes + front_;
    front_ += plan_.reserved.pixels;
    scratch_ += plan_.reserved.scratch;
    --waiting_;
    ++as_crops_;
  }
  for (std::size_t crop = 0; crop < plans.size(); ++crop) {
    const std::int64_t size = plan_.kinds[crop].size;
    kernels::crop_resize(decoded.rgb.data(), 3 * decoded.width, plans[crop].box, size, size, kernels::Flip::no,
                         scratch.image, scratch.planes);
    kernels::to_interleaved(scratch.planes, static_cast<std::uint8_t*>(memory_.data()) + place);
    auto* const to = job(image, crop);
    *to = job_of(plans[crop], plan_.kinds[crop].augment);
    to->box = {0, 0, size, size};
    to->pixels = place;
    to->row_bytes = 3 * size;
    place += rounded(3 * size * size);
  }
}

std::optional<std::int64_t> Staging::claim(std::int64_t image, std::int64_t width, std::int64_t height,
                                           std::span<const CropPlan> plans) {
  ensure(plans.size() == plan_.kinds.size(), "staging: a plan for every crop");
  const auto room = plan_.room_of(width, height, plans);
  std::int64_t place = 0;
  {
    std::lock_guard lock(mutex_);
    // This image's reserve stays free too, since its decoding on the device may fail.
    if (front_ + back_ + room.pixels + waiting_ * plan_.reserved.pixels > plan_.most.pixels ||
        scratch_ + room.scratch + waiting_ * plan_.reserved.scratch > plan_.most.scratch)
      return std::nullopt;
    back_ += room.pixels;
    scratch_ += room.scratch;
    place = plan_.bytes() - back_;
  }
  describe(image, plans, place, 3 * width);
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

std::size_t Staging::bytes() const {
  return static_cast<std::size_t>(plan_.table_bytes + front_);
}

}  // namespace seer::data
