// SPDX-License-Identifier: Apache-2.0
#include "seer/data/augment.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "seer/base/random.hpp"

namespace seer::data {
namespace {

/// Round half to even, as Python's round.
std::int64_t round_even(double value) {
  return static_cast<std::int64_t>(std::nearbyint(value));
}

/// torchvision's RandomResizedCrop: ten tries, then the centre with its aspect ratio clamped.
kernels::Box draw_box(Random& random, const CropKind& kind, const std::vector<double>& ratio, std::int64_t width,
                      std::int64_t height) {
  const double area = static_cast<double>(width) * static_cast<double>(height);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(kind.scale_low, kind.scale_high);
    const double aspect = std::exp(random.uniform(std::log(ratio[0]), std::log(ratio[1])));
    const std::int64_t w = round_even(std::sqrt(target * aspect)), h = round_even(std::sqrt(target / aspect));
    if (w <= 0 || h <= 0 || w > width || h > height) continue;
    const auto top = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(height - h + 1)));
    const auto left = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(width - w + 1)));
    return {left, top, w, h};
  }
  std::int64_t w = width, h = height;
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  if (aspect < ratio[0]) h = std::min(height, std::max<std::int64_t>(1, round_even(static_cast<double>(w) / ratio[0])));
  if (aspect > ratio[1]) w = std::min(width, std::max<std::int64_t>(1, round_even(static_cast<double>(h) * ratio[1])));
  return {(width - w) / 2, (height - h) / 2, w, h};
}

}  // namespace

std::array<float, 3> floats(const std::vector<double>& values) {
  return {static_cast<float>(values[0]), static_cast<float>(values[1]), static_cast<float>(values[2])};
}

double strength_of(const config::Augment& augment, kernels::Colour change) {
  return std::array{augment.brightness, augment.contrast, augment.saturation,
                    augment.hue}[static_cast<std::size_t>(change)];
}

std::vector<CropKind> crop_kinds(const config::Config& config) {
  std::vector<CropKind> kinds;
  for (const auto& entry : config.crops) {
    const CropKind kind{entry.size, entry.scale[0], entry.scale[1], entry.augment.value_or(config.augment)};
    kinds.insert(kinds.end(), static_cast<std::size_t>(entry.count), kind);
  }
  return kinds;
}

CropPlan plan_crop(const CropKind& kind, std::int64_t width, std::int64_t height, std::uint64_t seed,
                   std::uint64_t position, std::uint32_t crop) {
  const auto& augment = kind.augment;
  Random random(seed, Purpose::augmentation, position, crop);
  CropPlan plan;
  plan.box = draw_box(random, kind, augment.aspect_ratio, width, height);
  plan.flip = random.uniform() < augment.flip_probability ? kernels::Flip::yes : kernels::Flip::no;
  plan.jitter = random.uniform() < augment.jitter_probability;
  if (plan.jitter) {
    for (std::size_t i = 3; i > 0; --i) std::swap(plan.order[i], plan.order[random.below(i + 1)]);
    const auto factor = [&random](double strength) {
      return static_cast<float>(random.uniform(std::max(0.0, 1.0 - strength), 1.0 + strength));
    };
    plan.brightness = factor(augment.brightness);
    plan.contrast = factor(augment.contrast);
    plan.saturation = factor(augment.saturation);
    plan.hue = random.uniform(-augment.hue, augment.hue);
  }
  plan.grey = random.uniform() < augment.grey_probability;
  plan.blur = random.uniform() < augment.blur_probability;
  if (plan.blur) plan.radius = static_cast<float>(random.uniform(augment.blur_radius[0], augment.blur_radius[1]));
  return plan;
}

void apply_crop(const Image& image, const CropPlan& plan, const CropKind& kind, AugmentScratch& scratch, float* out) {
  const auto& augment = kind.augment;
  auto& planes = scratch.planes;
  kernels::crop_resize(image.rgb.data(), image.width * 3, plan.box, kind.size, kind.size, plan.flip, scratch.image,
                       planes);
  for (const auto step : plan.order) {
    if (!plan.jitter || strength_of(augment, step) <= 0) continue;
    if (step == kernels::Colour::brightness) kernels::adjust_brightness(planes, plan.brightness);
    if (step == kernels::Colour::contrast) kernels::adjust_contrast(planes, plan.contrast);
    if (step == kernels::Colour::saturation) kernels::adjust_saturation(planes, plan.saturation);
    if (step == kernels::Colour::hue) kernels::adjust_hue(planes, plan.hue);
  }
  if (plan.grey) kernels::grey(planes);
  if (plan.blur && plan.radius > 0) kernels::gaussian_blur(planes, plan.radius, scratch.image);
  kernels::normalise(planes, floats(augment.mean).data(), floats(augment.std).data(), out);
}

void center_crop(const Image& image, std::int64_t resize, std::int64_t crop, AugmentScratch& scratch,
                 kernels::Planes& out) {
  const std::int64_t shorter = std::min(image.width, image.height), longer = std::max(image.width, image.height);
  const std::int64_t other =
      static_cast<std::int64_t>(static_cast<double>(resize * longer) / static_cast<double>(shorter));
  const std::int64_t width = image.width <= image.height ? resize : other;
  const std::int64_t height = image.width <= image.height ? other : resize;
  // Offsets round half to even. A side shorter than the crop is padded; an odd pixel of padding goes after it.
  const auto offset = [crop](std::int64_t side) {
    return side >= crop ? round_even(static_cast<double>(side - crop) / 2.0) : -((crop - side) / 2);
  };
  const std::int64_t left = offset(width), top = offset(height);
  // Compute only the part that the crop shows: a very long image must not become a huge resized image.
  const kernels::Box part{std::max<std::int64_t>(0, left), std::max<std::int64_t>(0, top), std::min(crop, width),
                          std::min(crop, height)};
  const kernels::Box all{0, 0, image.width, image.height};
  const bool padded = part.width < crop || part.height < crop;
  auto& seen = padded ? scratch.planes : out;
  kernels::crop_resize_part(image.rgb.data(), image.width * 3, all, width, height, part, scratch.image, seen);
  if (!padded) return;
  out.reshape(crop, crop);
  std::fill(out.bytes.begin(), out.bytes.end(), std::uint8_t{0});
  const std::int64_t x = std::max<std::int64_t>(0, -left), y = std::max<std::int64_t>(0, -top);
  for (int c = 0; c < 3; ++c)
    for (std::int64_t row = 0; row < part.height; ++row)
      std::memcpy(out.plane(c) + (y + row) * out.stride + x, seen.plane(c) + row * seen.stride,
                  static_cast<std::size_t>(part.width));
}

}  // namespace seer::data
