// SPDX-License-Identifier: Apache-2.0
// RandAugment's operations against what Pillow computed (validation/reference/randaugment.py), exactly, and on images
// that have no inside.
#include "seer/kernels/image_operations.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "golden.hpp"

namespace seer::kernels {
namespace {

constexpr std::array<std::uint8_t, 3> kFill = {124, 116, 104};
constexpr const char* kNames[kOperations] = {"auto_contrast", "equalize",     "invert",  "rotate",      "posterize",
                                             "solarize",      "solarize_add", "color",   "contrast",    "brightness",
                                             "sharpness",     "shear_x",      "shear_y", "translate_x", "translate_y"};

Planes planes_of(const double* rgb, std::int64_t width, std::int64_t height) {
  Planes planes;
  planes.reshape(width, height);
  for (std::int64_t i = 0; i < width * height * 3; ++i)
    planes.plane(static_cast<int>(i % 3))[i / 3 / width * planes.stride + i / 3 % width] =
        static_cast<std::uint8_t>(rgb[i]);
  return planes;
}

/// Number of values that differ.
int differing(const Planes& planes, const double* wanted) {
  std::vector<std::uint8_t> rgb(static_cast<std::size_t>(3 * planes.width * planes.height));
  to_interleaved(planes, rgb.data());
  int count = 0;
  for (std::size_t i = 0; i < rgb.size(); ++i) count += rgb[i] != wanted[i] ? 1 : 0;
  return count;
}

TEST(ImageOperations, AreThoseOfPillow) {
  const test::GoldenFile file("randaugment.h5");
  const auto image = file.read("image"), flat = file.read("flat");
  const auto height = static_cast<std::int64_t>(image.dims[0]), width = static_cast<std::int64_t>(image.dims[1]);
  ImageScratch scratch;
  int compared = 0;
  for (int k = 0; k < kOperations; ++k) {
    const std::string name = kNames[k];
    const auto arguments = file.read(name + "/argument").values;
    const auto outputs = file.read(name + "/output").values;
    for (std::size_t n = 0; n < arguments.size(); ++n, ++compared) {
      auto planes = planes_of(image.values.data(), width, height);
      apply(static_cast<Operation>(k), arguments[n], kFill, scratch, planes);
      EXPECT_EQ(differing(planes, outputs.data() + n * image.values.size()), 0) << name << " " << arguments[n];
    }
  }
  EXPECT_EQ(compared, 29);
  for (const auto operation : {Operation::auto_contrast, Operation::equalize}) {
    const std::string name = kNames[static_cast<std::size_t>(operation)];
    auto planes = planes_of(flat.values.data(), width, height);
    apply(operation, 0, kFill, scratch, planes);
    EXPECT_EQ(differing(planes, file.read(name + "/of_flat").values.data()), 0) << name;
  }
}

TEST(ImageOperations, ChangeNothingWithTheirNeutralArguments) {
  const test::GoldenFile file("randaugment.h5");
  const auto image = file.read("image");
  ImageScratch scratch;
  const std::pair<Operation, double> neutral[] = {
      {Operation::rotate, 0},  {Operation::posterize, 8}, {Operation::solarize, 256},  {Operation::solarize_add, 0},
      {Operation::color, 1},   {Operation::contrast, 1},  {Operation::brightness, 1},  {Operation::sharpness, 1},
      {Operation::shear_x, 0}, {Operation::shear_y, 0},   {Operation::translate_x, 0}, {Operation::translate_y, 0}};
  for (const auto& [operation, argument] : neutral) {
    auto planes = planes_of(image.values.data(), static_cast<std::int64_t>(image.dims[1]),
                            static_cast<std::int64_t>(image.dims[0]));
    apply(operation, argument, kFill, scratch, planes);
    EXPECT_EQ(differing(planes, image.values.data()), 0) << kNames[static_cast<std::size_t>(operation)];
  }
}

TEST(ImageOperations, TakeImagesOfOnePixelAndOfOneLine) {
  const std::vector<double> values = {9, 200, 31, 9, 100, 30, 8, 50, 29};
  ImageScratch scratch;
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 1}, {1, 3}}) {
    for (int k = 0; k < kOperations; ++k) {
      auto planes = planes_of(values.data(), width, height);
      apply(static_cast<Operation>(k), 0.3, kFill, scratch, planes);
      EXPECT_EQ(planes.width, width);
    }
    auto planes = planes_of(values.data(), width, height);
    apply(Operation::sharpness, 0.1, kFill, scratch, planes);
    EXPECT_EQ(differing(planes, values.data()), 0);  // edges stay
    apply(Operation::translate_x, 2, kFill, scratch, planes);
    EXPECT_EQ(planes.plane(1)[0], kFill[1]);
  }
}

}  // namespace
}  // namespace seer::kernels
