// SPDX-License-Identifier: Apache-2.0
#include "seer/data/augment.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <vector>

#include "golden.hpp"
#include "seer/base/random.hpp"
#include "seer/data/eval_reader.hpp"

namespace seer::data {
namespace {

Image noise(std::int64_t width, std::int64_t height) {
  Random random(1, Purpose::test);
  Image image{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3))};
  for (auto& x : image.rgb) x = static_cast<std::uint8_t>(random.bits() >> 24);
  return image;
}

constexpr int kDraws = 20000;

TEST(Augment, CropsHaveTheAreasAspectsAndPlacesOfSpec41) {
  const config::Augment augment;
  const CropKind kind{224, 0.14, 1.0};
  const std::int64_t width = 640, height = 480;
  double area_sum = 0, log_aspect_sum = 0, left_sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto box = plan_crop(kind, width, height, 5, static_cast<std::uint64_t>(i), 0).box;
    ASSERT_GE(box.left, 0);
    ASSERT_GE(box.top, 0);
    ASSERT_GT(box.width, 0);
    ASSERT_GT(box.height, 0);
    ASSERT_LE(box.left + box.width, width);
    ASSERT_LE(box.top + box.height, height);
    const double area = static_cast<double>(box.width * box.height) / static_cast<double>(width * height);
    const double aspect = static_cast<double>(box.width) / static_cast<double>(box.height);
    ASSERT_GT(area, 0.137);
    ASSERT_LE(area, 1.0);
    ASSERT_GT(aspect, 0.745);
    ASSERT_LT(aspect, 1.342);
    area_sum += area;
    log_aspect_sum += std::log(aspect);
    if (box.width < width) left_sum += static_cast<double>(box.left) / static_cast<double>(width - box.width);
  }
  // What torchvision's RandomResizedCrop.get_params gives for this image over 60000 draws (large areas must fit, so
  // the mean lies below that of U[0.14, 1]); four standard deviations of a mean of 20000.
  EXPECT_NEAR(area_sum / kDraws, 0.4627, 0.006);
  EXPECT_NEAR(log_aspect_sum / kDraws, 0.0327, 0.005);
  EXPECT_NEAR(left_sum / kDraws, 0.5, 0.01);
}

TEST(Augment, SmallAreasAreUniform) {
  // Small crops always fit: area U[0.05, 0.14], log aspect U[log 3/4, log 4/3].
  const config::Augment augment;
  std::vector<double> areas, aspects;
  for (int i = 0; i < kDraws; ++i) {
    const auto box = plan_crop({96, 0.05, 0.14, augment}, 2000, 1500, 5, static_cast<std::uint64_t>(i), 3).box;
    areas.push_back(static_cast<double>(box.width * box.height) / 3e6);
    aspects.push_back(std::log(static_cast<double>(box.width) / static_cast<double>(box.height)));
  }
  std::sort(areas.begin(), areas.end());
  std::sort(aspects.begin(), aspects.end());
  for (int decile = 1; decile < 10; ++decile) {
    const auto at = static_cast<std::size_t>(decile * kDraws / 10);
    EXPECT_NEAR(areas[at], 0.05 + 0.009 * decile, 0.0015);
    EXPECT_NEAR(aspects[at], std::log(0.75) + decile * 0.1 * std::log(16.0 / 9), 0.01);
  }
}

TEST(Augment, FallsBackToTheClampedCentre) {
  const config::Augment augment;
  const CropKind whole{32, 1.0, 1.0};  // only an aspect ratio between the bounds can hold the whole area
  const auto wide = plan_crop(whole, 300, 30, 0, 0, 0).box;
  EXPECT_EQ(wide.height, 30);
  EXPECT_EQ(wide.width, 40);
  EXPECT_EQ(wide.left, 130);
  const auto tall = plan_crop(whole, 30, 301, 0, 0, 0).box;
  EXPECT_EQ(tall.width, 30);
  EXPECT_EQ(tall.height, 40);
  EXPECT_EQ(tall.top, 130);
  const auto one = plan_crop({32, 0.05, 0.14, augment}, 1, 1, 0, 0, 0).box;
  EXPECT_EQ(one.width, 1);
  EXPECT_EQ(one.height, 1);
  const auto line = plan_crop({32, 0.05, 0.14, augment}, 1, 65535, 0, 0, 0).box;
  EXPECT_EQ(line.width, 1);
  EXPECT_EQ(line.height, 1);
}

TEST(Augment, ProbabilitiesAndFactorsAreThoseOfSpec42) {
  const config::Augment augment;
  int flips = 0, jitters = 0, greys = 0, blurs = 0;
  std::map<std::array<kernels::Colour, 4>, int> orders;
  double brightness[2] = {9, 0}, hue[2] = {9, -9}, radius[2] = {9, 0}, contrast_sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto plan = plan_crop({96, 0.05, 0.14, augment}, 200, 150, 8, static_cast<std::uint64_t>(i), 1);
    flips += plan.flip == kernels::Flip::yes ? 1 : 0;
    greys += plan.grey ? 1 : 0;
    if (plan.jitter) {
      ++jitters;
      ++orders[plan.order];
      contrast_sum += static_cast<double>(plan.contrast);
      brightness[0] = std::min(brightness[0], static_cast<double>(plan.brightness));
      brightness[1] = std::max(brightness[1], static_cast<double>(plan.brightness));
      hue[0] = std::min(hue[0], plan.hue);
      hue[1] = std::max(hue[1], plan.hue);
    }
    if (plan.blur) {
      ++blurs;
      radius[0] = std::min(radius[0], static_cast<double>(plan.radius));
      radius[1] = std::max(radius[1], static_cast<double>(plan.radius));
    }
  }
  // Four standard deviations of a binomial of 20000 draws are at most 283.
  EXPECT_NEAR(flips, 0.5 * kDraws, 283);
  EXPECT_NEAR(jitters, 0.8 * kDraws, 227);
  EXPECT_NEAR(greys, 0.2 * kDraws, 227);
  EXPECT_NEAR(blurs, 0.5 * kDraws, 283);
  EXPECT_EQ(orders.size(), 24U);
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, jitters / 24.0, 105);
  EXPECT_NEAR(contrast_sum / jitters, 1.0, 0.02);
  EXPECT_NEAR(brightness[0], 0.2, 0.005);
  EXPECT_NEAR(brightness[1], 1.8, 0.005);
  EXPECT_NEAR(hue[0], -0.2, 0.002);
  EXPECT_NEAR(hue[1], 0.2, 0.002);
  EXPECT_NEAR(radius[0], 0.1, 0.005);
  EXPECT_NEAR(radius[1], 2.0, 0.005);
}

TEST(Augment, DependsOnSeedPositionAndCropAlone) {
  const config::Augment augment;
  const auto image = noise(90, 70);
  const auto crop = [&](std::uint64_t seed, std::uint64_t position, std::uint32_t number, AugmentScratch& scratch) {
    const auto plan = plan_crop({32, 0.14, 1.0, augment}, image.width, image.height, seed, position, number);
    std::vector<float> out(32 * 32 * 3);
    apply_crop(image, plan, {32, 0.14, 1.0, augment}, scratch, out.data());
    return out;
  };
  AugmentScratch fresh, used;
  crop(9, 9, 9, used);
  const auto wanted = crop(1, 2, 3, fresh);
  EXPECT_EQ(crop(1, 2, 3, used), wanted);
  EXPECT_NE(crop(2, 2, 3, used), wanted);
  EXPECT_NE(crop(1, 3, 3, used), wanted);
  EXPECT_NE(crop(1, 2, 4, used), wanted);
}

TEST(Augment, OperationsComeInTheOrderOfSpec41) {
  // Does each step by itself: crop and flip, jitter in its order, grey, blur, normalise.
  config::Augment augment;
  const auto image = noise(50, 40);
  CropPlan plan;
  plan.box = {3, 5, 30, 20};
  plan.flip = kernels::Flip::yes;
  plan.jitter = true;
  using kernels::Colour;
  plan.order = {Colour::hue, Colour::contrast, Colour::saturation, Colour::brightness};
  plan.brightness = 1.3F;
  plan.contrast = 0.6F;
  plan.saturation = 1.5F;
  plan.hue = -0.11;
  plan.grey = true;
  plan.blur = true;
  plan.radius = 0.8F;
  AugmentScratch scratch;
  std::vector<float> out(24 * 24 * 3), wanted(out.size());
  apply_crop(image, plan, {24, 0.14, 1.0, augment}, scratch, out.data());
  kernels::ImageScratch other;
  kernels::Planes planes;
  kernels::crop_resize(image.rgb.data(), 150, plan.box, 24, 24, plan.flip, other, planes);
  kernels::adjust_hue(planes, plan.hue);
  kernels::adjust_contrast(planes, plan.contrast);
  kernels::adjust_saturation(planes, plan.saturation);
  kernels::adjust_brightness(planes, plan.brightness);
  kernels::grey(planes);
  kernels::gaussian_blur(planes, plan.radius, other);
  const float mean[3] = {0.485F, 0.456F, 0.406F}, std[3] = {0.229F, 0.224F, 0.225F};
  kernels::normalise(planes, mean, std, wanted.data());
  EXPECT_EQ(out, wanted);
}

TEST(Augment, RandAugmentDrawsWhatTimmDraws) {
  config::Augment augment;
  augment.randaugment_ops = 2;
  int steps = 0, counts[kernels::kOperations] = {}, mirrored = 0, bounded = 0;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto plan = plan_crop({96, 0.05, 0.14, augment}, 200, 150, 8, static_cast<std::uint64_t>(i), 1);
    for (std::size_t s = 0; s < plan.step_count; ++s) {
      ++steps;
      const auto& step = plan.steps[s];
      ++counts[static_cast<std::size_t>(step.operation)];
      if (step.operation != kernels::Operation::rotate) continue;
      const double level = std::abs(step.argument) / 3;
      mirrored += step.argument < 0 ? 1 : 0;
      ASSERT_LE(level, 10);
      bounded += level == 10 ? 1 : 0;
      sum += level - 9;
      squares += (level - 9) * (level - 9);
    }
  }
  EXPECT_NEAR(steps, kDraws, 4 * std::sqrt(kDraws / 2.0));  // two, each with probability 1/2
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 15.0, 4 * std::sqrt(kDraws / 15.0));
  const double rotations = counts[static_cast<std::size_t>(kernels::Operation::rotate)];
  EXPECT_NEAR(mirrored, rotations / 2, 2 * std::sqrt(rotations));
  // N(9, 1/2), values above 10 = 9 + 2 sigma become 10: mass 0.02275, mean -0.5 (phi(2) - 2 Q(2)) = -0.00425.
  EXPECT_NEAR(bounded, 0.02275 * rotations, 4 * std::sqrt(0.02275 * rotations));
  EXPECT_NEAR(sum / rotations, -0.00425, 4 * 0.5 / std::sqrt(rotations));
  EXPECT_NEAR(squares / rotations, 0.24, 0.04);
}

TEST(Augment, RandAugmentsArgumentsGrowWithTheLevel) {
  using enum kernels::Operation;
  // timm's level_to_arg functions of the increasing policy at levels 0, 4.3 and 10.
  const std::tuple<kernels::Operation, double, double, double> wanted[] = {
      {rotate, 0, 12.9, 30},       {posterize, 4, 3, 0},           {solarize, 256, 146, 0},
      {solarize_add, 0, 47, 110},  {color, 1, 1.387, 1.9},         {contrast, 1, 1.387, 1.9},
      {brightness, 1, 1.387, 1.9}, {sharpness, 1, 1.387, 1.9},     {shear_x, 0, 0.129, 0.3},
      {shear_y, 0, 0.129, 0.3},    {translate_x, 0, 0.1935, 0.45}, {translate_y, 0, 0.1935, 0.45}};
  for (const auto& [operation, low, middle, high] : wanted) {
    const int number = static_cast<int>(operation);
    EXPECT_NEAR(argument_of(operation, 0, false), low, 1e-12) << number;
    EXPECT_NEAR(argument_of(operation, 4.3, false), middle, 1e-12) << number;
    EXPECT_NEAR(argument_of(operation, 10, false), high, 1e-12) << number;
  }
  EXPECT_NEAR(argument_of(color, 4.3, true), 0.613, 1e-12);
  EXPECT_NEAR(argument_of(color, 10, true), 0.1, 1e-12);
  EXPECT_NEAR(argument_of(shear_y, 10, true), -0.3, 1e-12);
  EXPECT_NEAR(argument_of(solarize, 10, true), 0, 1e-12);
}

TEST(Augment, ErasesWithNoiseOfTheNamedStream) {
  config::Augment augment;
  augment.erase_probability = 0.25;
  const CropKind kind{24, 0.14, 1.0, augment};
  CropKind plain = kind;
  plain.augment.erase_probability = 0;
  const auto image = noise(90, 70);
  AugmentScratch scratch;
  int erased = 0;
  double area = 0, shape = 0, sum = 0, squares = 0, values = 0;
  for (std::uint64_t position = 0; position < 4000; ++position) {
    const auto plan = plan_crop(kind, image.width, image.height, 3, position, 2);
    const auto& box = plan.erasure.box;
    if (box.width == 0) continue;
    ++erased;
    ASSERT_TRUE(box.left >= 0 && box.top >= 0 && box.left + box.width <= 24 && box.top + box.height <= 24);
    area += static_cast<double>(box.width * box.height) / 576;
    shape += std::log(static_cast<double>(box.height) / static_cast<double>(box.width));
    if (erased > 40) continue;
    std::vector<float> out(24 * 24 * 3), whole(out.size());
    apply_crop(image, plan, kind, scratch, out.data());
    apply_crop(image, plan_crop(plain, image.width, image.height, 3, position, 2), plain, scratch, whole.data());
    Random random(3, Purpose::erasing_noise, position, 2);
    for (std::int64_t i = 0; i < 24 * 24; ++i) {
      double wanted[4];
      for (int pair = 0; pair < 4; pair += 2) {
        const auto unit = [&] { return static_cast<double>((random.bits() >> 8) + 1) / 16777216; };
        const double radius = std::sqrt(-2 * std::log(unit())), angle = 2 * 3.14159265358979 * unit();
        wanted[pair] = radius * std::cos(angle);
        wanted[pair + 1] = radius * std::sin(angle);
      }
      const bool inside =
          i / 24 >= box.top && i / 24 < box.top + box.height && i % 24 >= box.left && i % 24 < box.left + box.width;
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto at = static_cast<std::size_t>(3 * i + c);
        if (!inside) {
          ASSERT_EQ(out[at], whole[at]);
          continue;
        }
        ASSERT_NEAR(out[at], wanted[c], 4e-6);
        sum += static_cast<double>(out[at]);
        squares += static_cast<double>(out[at]) * static_cast<double>(out[at]);
        ++values;
      }
    }
  }
  EXPECT_NEAR(erased, 1000, 4 * std::sqrt(750));
  EXPECT_NEAR(area / erased, 0.1754, 4 * 0.09 / std::sqrt(erased));  // timm's get_params over 200000 draws, 24 pixels
  EXPECT_NEAR(shape / erased, 0, 4 * 0.7 / std::sqrt(erased));
  EXPECT_NEAR(sum / values, 0, 4 / std::sqrt(values));
  EXPECT_NEAR(squares / values, 1, 4 * std::sqrt(2 / values));
}

TEST(Augment, NewAugmentationsLeaveTheDrawsOfTheOthers) {
  config::Augment augment;
  const CropKind before{32, 0.14, 1.0, augment};
  augment.randaugment_ops = 16;
  augment.randaugment_deviation = 0;
  augment.erase_probability = 1;
  const CropKind after{32, 0.14, 1.0, augment};
  const auto image = noise(90, 70);
  AugmentScratch scratch;
  for (std::uint64_t position = 0; position < 50; ++position) {
    auto a = plan_crop(before, 90, 70, 1, position, 0);
    const auto b = plan_crop(after, 90, 70, 1, position, 0);
    EXPECT_EQ(a.step_count, 0U);
    EXPECT_GT(b.step_count, 0U);
    EXPECT_TRUE(b.erasure.box.width > 0);
    EXPECT_TRUE(a.box.left == b.box.left && a.flip == b.flip && a.jitter == b.jitter && a.order == b.order &&
                a.hue == b.hue && a.grey == b.grey && a.blur == b.blur && a.radius == b.radius);
    std::vector<float> out(32 * 32 * 3), again(out.size());
    apply_crop(image, b, after, scratch, out.data());
    AugmentScratch fresh;
    apply_crop(image, plan_crop(after, 90, 70, 1, position, 0), after, fresh, again.data());
    EXPECT_EQ(out, again);
  }
}

TEST(Augment, CenterCropMatchesGolden) {
  const test::GoldenFile file("augment.h5");
  const auto golden = file.read("image"), wanted = file.read("center_224");
  Image image{static_cast<std::int64_t>(golden.dims[1]), static_cast<std::int64_t>(golden.dims[0]),
              std::vector<std::uint8_t>(golden.values.begin(), golden.values.end())};
  AugmentScratch scratch;
  kernels::Planes planes;
  center_crop(image, 256, 224, scratch, planes);
  std::vector<std::uint8_t> out(224 * 224 * 3);
  kernels::to_interleaved(planes, out.data());
  ASSERT_EQ(wanted.values.size(), out.size());
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], wanted.values[i]) << i;
}

TEST(Augment, CenterCropRoundsAndPadsAsTorchvision) {
  // 5 x 3 at its own size: left edges (5 - 2) / 2 = 1.5 -> 2 and (3 - 2) / 2 = 0.5 -> 0 (half to even).
  Image image{5, 3, {}};
  for (int i = 0; i < 15; ++i) image.rgb.insert(image.rgb.end(), 3, static_cast<std::uint8_t>(i));
  AugmentScratch scratch;
  kernels::Planes planes;
  center_crop(image, 3, 2, scratch, planes);
  EXPECT_EQ(planes.plane(0)[0], 2);
  EXPECT_EQ(planes.plane(0)[planes.stride + 1], 8);
  // A crop larger than the image by three pixels: one black pixel before the image and two after it.
  Image small{3, 3, std::vector<std::uint8_t>(27, 9)};
  center_crop(small, 3, 6, scratch, planes);
  for (int y = 0; y < 6; ++y)
    for (int x = 0; x < 6; ++x)
      EXPECT_EQ(planes.plane(2)[y * planes.stride + x], x >= 1 && x < 4 && y >= 1 && y < 4 ? 9 : 0);
  // A line of 1 x 40000 pixels must not become an image of 256 x 10 million.
  const auto line = noise(1, 40000);
  center_crop(line, 256, 224, scratch, planes);
  EXPECT_EQ(planes.width, 224);
  EXPECT_LT(scratch.bytes(), 64 << 20);
}

TEST(Augment, RawPixelsAverageTheirPart) {
  Image image{16, 16, {}};
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 16; ++x) image.rgb.insert(image.rgb.end(), 3, x < 8 ? 0 : 255);
  float out[2 * 2 * 3];
  AugmentScratch scratch;
  raw_pixels(image, 2, scratch, out);
  EXPECT_LT(out[0], 0.3F);
  EXPECT_GT(out[3], 0.7F);
  EXPECT_FLOAT_EQ(out[0], out[6]);
  EXPECT_NEAR(static_cast<double>(out[0] + out[3]), 1.0, 0.01);
}

}  // namespace
}  // namespace seer::data
