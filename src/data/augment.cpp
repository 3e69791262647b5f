// SPDX-License-Identifier: Apache-2.0
#include "seer/data/augment.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "seer/base/error.hpp"
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

/// timm's RandAugment: operations drawn with replacement, each done with probability 1/2.
void draw_steps(const config::Augment& augment, std::uint64_t seed, std::uint64_t position, std::uint32_t crop,
                CropPlan& plan) {
  ensure(augment.randaugment_ops <= CropPlan::kMostSteps, "a plan has room for RandAugment's operations");
  Random random(seed, Purpose::randaugment, position, crop);
  for (std::int64_t i = 0; i < augment.randaugment_ops; ++i) {
    const auto operation = static_cast<kernels::Operation>(random.below(kernels::kOperations));
    const bool done = random.uniform() < 0.5, mirrored = random.uniform() < 0.5;
    const double level = augment.randaugment_magnitude + augment.randaugment_deviation * random.normal();
    if (done)
      plan.steps[plan.step_count++] = {operation, argument_of(operation, std::clamp(level, 0.0, 10.0), mirrored)};
  }
}

/// timm's RandomErasing: ten tries for a rectangle smaller than the crop, of an area U(0.02, 1/3) and a shape that is
/// log-uniform in (0.3, 1/0.3).
kernels::Erasure draw_erasure(double probability, std::int64_t size, std::uint64_t seed, std::uint64_t position,
                              std::uint32_t crop) {
  Random random(seed, Purpose::erasing, position, crop);
  if (random.uniform() >= probability) return {};
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = static_cast<double>(size * size) * random.uniform(0.02, 1.0 / 3.0);
    const double aspect = std::exp(random.uniform(std::log(0.3), -std::log(0.3)));
    const std::int64_t h = round_even(std::sqrt(area * aspect)), w = round_even(std::sqrt(area / aspect));
    if (w <= 0 || h <= 0 || w >= size || h >= size) continue;
    const auto top = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(size - h + 1)));
    const auto left = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(size - w + 1)));
    return {{left, top, w, h}, seed, position, crop};
  }
  return {};
}

}  // namespace

double argument_of(kernels::Operation operation, double level, bool mirrored) {
  using enum kernels::Operation;
  const double part = level / 10, sign = mirrored ? -1 : 1;
  switch (operation) {
    case auto_contrast:
    case equalize:
    case invert:
      return 0;
    case rotate:
      return sign * part * 30;
    case posterize:
      return 4 - std::trunc(part * 4);
    case solarize:
      return 256 - std::trunc(part * 256);
    case solarize_add:
      return std::trunc(part * 110);
    case color:
    case contrast:
    case brightness:
    case sharpness:
      return std::max(0.1, 1 + sign * part * 0.9);
    case shear_x:
    case shear_y:
      return sign * part * 0.3;
    case translate_x:
    case translate_y:
      return sign * part * 0.45;
  }
  return 0;
}

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
  draw_steps(augment, seed, position, crop, plan);
  plan.erasure = draw_erasure(augment.erase_probability, kind.size, seed, position, crop);
  return plan;
}

void cut_crop(const Image& image, const CropPlan& plan, const CropKind& kind, AugmentScratch& scratch) {
  kernels::crop_resize(image.rgb.data(), image.width * 3, plan.box, kind.size, kind.size, plan.flip, scratch.image,
                       scratch.planes);
  std::array<std::uint8_t, 3> mean{};
  for (std::size_t c = 0; c < 3; ++c)
    mean[c] = static_cast<std::uint8_t>(std::clamp<std::int64_t>(round_even(255 * kind.augment.mean[c]), 0, 255));
  for (const auto& step : std::span(plan.steps).first(plan.step_count))
    kernels::apply(step.operation, step.argument, mean, scratch.image, scratch.planes);
}

void apply_crop(const Image& image, const CropPlan& plan, const CropKind& kind, AugmentScratch& scratch, float* out) {
  const auto& augment = kind.augment;
  auto& planes = scratch.planes;
  cut_crop(image, plan, kind, scratch);
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
  kernels::erase(plan.erasure, kind.size, out);
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
