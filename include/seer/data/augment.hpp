// SPDX-License-Identifier: Apache-2.0
// Makes one crop of an image: a random plan (CropPlan) and its execution (method.md 4).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/image.hpp"
#include "seer/kernels/image_batch.hpp"
#include "seer/kernels/image_operations.hpp"

namespace seer::data {

/// One crop of an image: its size in pixels, the range of its area relative to the image's, and its augmentation.
struct CropKind {
  std::int64_t size = 224;
  double scale_low = 0.14, scale_high = 1.0;
  config::Augment augment = {};
};

/// The crops of an image in order: each entry of the configuration, repeated `count` times.
std::vector<CropKind> crop_kinds(const config::Config& config);

/// All random choices for one crop.
struct CropPlan {
  kernels::Box box;
  kernels::Flip flip = kernels::Flip::no;
  bool jitter = false;
  std::array<kernels::Colour, 4> order = {kernels::Colour::brightness, kernels::Colour::contrast,
                                          kernels::Colour::saturation, kernels::Colour::hue};
  float brightness = 1, contrast = 1, saturation = 1;
  double hue = 0;
  bool grey = false;
  bool blur = false;
  float radius = 0;
  struct Step {
    kernels::Operation operation;
    double argument;
  };
  static constexpr std::int64_t kMostSteps = 16;
  std::array<Step, kMostSteps> steps = {};  ///< of RandAugment; the first `step_count` are used
  std::size_t step_count = 0;
  kernels::Erasure erasure;
};

/// RandAugment: the argument of an operation at a level from 0 to 10, as timm's "inc1" policy has it (method.md 4.4).
/// `mirrored`: of the opposite sign, for operations with a direction.
double argument_of(kernels::Operation operation, double level, bool mirrored);
/// The configured strength of a colour change. Zero switches it off, as in torchvision.
double strength_of(const config::Augment& augment, kernels::Colour change);
/// A mean or standard deviation of the configuration.
std::array<float, 3> floats(const std::vector<double>& values);

/// Draws from (seed, position of the image in the infinite sequence, crop): the same on every rank, thread and run.
CropPlan plan_crop(const CropKind& kind, std::int64_t width, std::int64_t height, std::uint64_t seed,
                   std::uint64_t position, std::uint32_t crop);

/// Buffers that one thread reuses.
struct AugmentScratch {
  kernels::Planes planes;
  kernels::ImageScratch image;
  std::int64_t bytes() const { return static_cast<std::int64_t>(planes.bytes.capacity()) + image.bytes(); }
};

/// The steps before the colour changes, which need the host: crop, resize, mirror, RandAugment. Leaves scratch.planes.
void cut_crop(const Image& image, const CropPlan& plan, const CropKind& kind, AugmentScratch& scratch);
/// Applies the plan: out[size * size * 3], NHWC, normalised.
void apply_crop(const Image& image, const CropPlan& plan, const CropKind& kind, AugmentScratch& scratch, float* out);

/// The evaluation transform, with 8-bit output (method.md 8.1). Resizes the shorter side to `resize` and the longer one
/// to int(resize * long / short), then cuts out the centre `crop` x `crop` pixels. Rounds as torchvision does. Pixels
/// outside the image are black.
void center_crop(const Image& image, std::int64_t resize, std::int64_t crop, AugmentScratch& scratch,
                 kernels::Planes& out);

}  // namespace seer::data
