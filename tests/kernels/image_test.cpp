// SPDX-License-Identifier: Apache-2.0
// 8-bit operations against what Pillow and torchvision computed (augment.h5), exactly, and against naive loops on
// sizes and values that the golden file does not reach.
#include "seer/kernels/image.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "golden.hpp"
#include "seer/base/random.hpp"

namespace seer::kernels {
namespace {

using Bytes = std::vector<std::uint8_t>;

struct Picture {
  std::int64_t width = 0, height = 0;
  Bytes rgb;
};

Picture read_picture(const test::GoldenFile& file, const std::string& name) {
  const auto golden = file.read(name);
  return {static_cast<std::int64_t>(golden.dims[1]), static_cast<std::int64_t>(golden.dims[0]),
          Bytes(golden.values.begin(), golden.values.end())};
}

Picture noise(std::int64_t width, std::int64_t height, std::uint64_t seed) {
  Random random(seed, Purpose::test);
  Picture picture{width, height, Bytes(static_cast<std::size_t>(width * height * 3))};
  for (auto& x : picture.rgb) x = static_cast<std::uint8_t>(random.bits() >> 24);
  return picture;
}

Planes planes_of(const Picture& picture) {
  Planes planes;
  planes.reshape(picture.width, picture.height);
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < picture.height; ++y)
      for (std::int64_t x = 0; x < picture.width; ++x)
        planes.plane(c)[y * planes.stride + x] = picture.rgb[static_cast<std::size_t>((y * picture.width + x) * 3 + c)];
  return planes;
}

Bytes interleaved(const Planes& planes) {
  Bytes rgb(static_cast<std::size_t>(planes.width * planes.height * 3));
  to_interleaved(planes, rgb.data());
  return rgb;
}

std::size_t differing(const Bytes& a, const Bytes& b) {
  EXPECT_EQ(a.size(), b.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

Bytes resized(const Picture& picture, const Box& box, std::int64_t width, std::int64_t height, Flip flip = Flip::no) {
  ImageScratch scratch;
  Planes out;
  crop_resize(picture.rgb.data(), picture.width * 3, box, width, height, flip, scratch, out);
  return interleaved(out);
}

TEST(Image, GoldenOperationsMatchExactly) {
  const test::GoldenFile file("augment.h5");
  const auto picture = read_picture(file, "image");
  const std::vector<std::pair<std::string, std::function<void(Planes&, double)>>> operations = {
      {"brightness", [](Planes& p, double f) { adjust_brightness(p, static_cast<float>(f)); }},
      {"contrast", [](Planes& p, double f) { adjust_contrast(p, static_cast<float>(f)); }},
      {"saturation", [](Planes& p, double f) { adjust_saturation(p, static_cast<float>(f)); }},
      {"hue", [](Planes& p, double f) { adjust_hue(p, f); }},
      {"blur",
       [](Planes& p, double f) {
         ImageScratch scratch;
         gaussian_blur(p, static_cast<float>(f), scratch);
       }},
  };
  int compared = 0;
  for (const auto& [name, apply] : operations) {
    for (const auto& value : file.names(name)) {
      const std::string group = name + "/" + value;
      auto planes = planes_of(picture);
      apply(planes, file.read(group + (name == "blur" ? "/radius" : "/factor")).values[0]);
      EXPECT_EQ(differing(interleaved(planes), read_picture(file, group + "/output").rgb), 0U) << group;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 12);
  auto planes = planes_of(picture);
  grey(planes);
  EXPECT_EQ(differing(interleaved(planes), read_picture(file, "grayscale").rgb), 0U);
}

TEST(Image, GoldenCropResizeMatchesExactly) {
  const test::GoldenFile file("augment.h5");
  const auto picture = read_picture(file, "image");
  for (const auto& name : file.names("crop_resize")) {
    const auto box = file.read("crop_resize/" + name + "/box").values;
    const auto at = [&box](std::size_t i) { return static_cast<std::int64_t>(box[i]); };
    const auto out = resized(picture, {at(1), at(0), at(3), at(2)}, at(4), at(4));
    EXPECT_EQ(differing(out, read_picture(file, "crop_resize/" + name + "/output").rgb), 0U) << name;
  }
}

/// The recipe of method.md 4.2, pixel by pixel: horizontal, 8 bits, vertical.
Bytes naive_resize(const Picture& in, const Box& box, std::int64_t width, std::int64_t height) {
  struct Tap {
    std::int64_t at;
    std::int64_t weight;
  };
  const auto taps = [](std::int64_t from, std::int64_t to, std::int64_t x) {
    const double scale = static_cast<double>(from) / static_cast<double>(to), s = std::max(scale, 1.0);
    const double centre = (static_cast<double>(x) + 0.5) * scale;
    std::vector<double> weights;
    double sum = 0;
    const auto low = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - s + 0.5));
    const auto high = std::min(from, static_cast<std::int64_t>(centre + s + 0.5));
    for (auto t = low; t < high; ++t) {
      weights.push_back(std::max(0.0, 1 - std::abs((static_cast<double>(t) - centre + 0.5) / s)));
      sum += weights.back();
    }
    std::vector<Tap> out;
    for (auto t = low; t < high; ++t)
      out.push_back({t, std::llround(weights[static_cast<std::size_t>(t - low)] / sum * 4194304.0)});
    return out;
  };
  const auto settle = [](std::int64_t sum) {
    return static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> 22, 0, 255));
  };
  Bytes middle(static_cast<std::size_t>(box.height * width * 3)), out(static_cast<std::size_t>(height * width * 3));
  for (std::int64_t x = 0; x < width; ++x) {
    const auto row_taps = taps(box.width, width, x);
    for (std::int64_t y = 0; y < box.height; ++y)
      for (int c = 0; c < 3; ++c) {
        std::int64_t sum = 1 << 21;
        for (const auto& tap : row_taps)
          sum += tap.weight * in.rgb[static_cast<std::size_t>(((y + box.top) * in.width + box.left + tap.at) * 3 + c)];
        middle[static_cast<std::size_t>((y * width + x) * 3 + c)] = settle(sum);
      }
  }
  for (std::int64_t y = 0; y < height; ++y) {
    const auto column_taps = taps(box.height, height, y);
    for (std::int64_t i = 0; i < width * 3; ++i) {
      std::int64_t sum = 1 << 21;
      for (const auto& tap : column_taps) sum += tap.weight * middle[static_cast<std::size_t>(tap.at * width * 3 + i)];
      out[static_cast<std::size_t>(y * width * 3 + i)] = settle(sum);
    }
  }
  return out;
}

TEST(Image, CropResizeMatchesNaiveLoopOnOddSizes) {
  Random random(3, Purpose::test);
  const auto draw = [&random](std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1)));
  };
  for (int i = 0; i < 60; ++i) {
    const auto picture = noise(draw(1, 150), draw(1, 150), static_cast<std::uint64_t>(i));
    Box box{0, 0, draw(1, picture.width), draw(1, picture.height)};
    box.left = draw(0, picture.width - box.width);
    box.top = draw(0, picture.height - box.height);
    const auto width = draw(1, 100), height = draw(1, 100);
    const auto wanted = naive_resize(picture, box, width, height);
    ASSERT_EQ(differing(resized(picture, box, width, height), wanted), 0U)
        << picture.width << "x" << picture.height << " box " << box.width << "x" << box.height << " to " << width << "x"
        << height;
    const auto mirrored = resized(picture, box, width, height, Flip::yes);
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x)
        for (int c = 0; c < 3; ++c)
          ASSERT_EQ(mirrored[static_cast<std::size_t>((y * width + width - 1 - x) * 3 + c)],
                    wanted[static_cast<std::size_t>((y * width + x) * 3 + c)]);
    // A part of the result is that part of the whole result.
    const Box part{draw(0, width - 1), draw(0, height - 1), 1, 1};
    const Box wide{part.left, part.top, draw(1, width - part.left), draw(1, height - part.top)};
    ImageScratch scratch;
    Planes out;
    crop_resize_part(picture.rgb.data(), picture.width * 3, box, width, height, wide, scratch, out);
    for (std::int64_t y = 0; y < wide.height; ++y)
      for (std::int64_t x = 0; x < wide.width; ++x)
        for (int c = 0; c < 3; ++c)
          ASSERT_EQ(out.plane(c)[y * out.stride + x],
                    wanted[static_cast<std::size_t>(((y + wide.top) * width + x + wide.left) * 3 + c)]);
  }
}

TEST(Image, BlurMatchesNaiveLoopOnOddSizesAndWideRadii) {
  Random random(4, Purpose::test);
  for (int i = 0; i < 40; ++i) {
    const auto width = static_cast<std::int64_t>(1 + random.below(70)),
               height = static_cast<std::int64_t>(1 + random.below(70));
    const auto picture = noise(width, height, 100 + static_cast<std::uint64_t>(i));
    const auto sigma = static_cast<float>(random.uniform(0.1, i % 2 == 0 ? 2.0 : 12.0));
    // Spec 4.2, on int64.
    const float variance = sigma * sigma / 3.0F;
    const auto length = static_cast<float>(std::sqrt(12.0 * static_cast<double>(variance) + 1.0));
    const auto l = static_cast<float>(std::floor((static_cast<double>(length) - 1.0) / 2.0));
    const float a = (2 * l + 1) * (l * (l + 1) - 3 * variance) / (6 * (variance - (l + 1) * (l + 1)));
    const float radius = l + a;
    const auto reach = static_cast<std::int64_t>(radius);
    const auto weight = static_cast<std::int64_t>(16777216.0F / (2 * radius + 1));
    const auto far_weight = (16777216 - (2 * reach + 1) * weight) / 2;
    Bytes now = picture.rgb;
    for (int pass = 0; pass < 6; ++pass) {
      Bytes next(now.size());
      for (std::int64_t y = 0; y < height; ++y)
        for (std::int64_t x = 0; x < width; ++x)
          for (int c = 0; c < 3; ++c) {
            const auto at = [&](std::int64_t k) -> std::int64_t {
              const auto xx = pass < 3 ? std::clamp<std::int64_t>(x + k, 0, width - 1) : x;
              const auto yy = pass < 3 ? y : std::clamp<std::int64_t>(y + k, 0, height - 1);
              return now[static_cast<std::size_t>((yy * width + xx) * 3 + c)];
            };
            std::int64_t inner = 0;
            for (std::int64_t k = -reach; k <= reach; ++k) inner += at(k);
            next[static_cast<std::size_t>((y * width + x) * 3 + c)] = static_cast<std::uint8_t>(
                (inner * weight + (at(-reach - 1) + at(reach + 1)) * far_weight + (1 << 23)) >> 24);
          }
      now = next;
    }
    auto planes = planes_of(picture);
    ImageScratch scratch;
    gaussian_blur(planes, sigma, scratch);
    ASSERT_EQ(differing(interleaved(planes), now), 0U) << width << "x" << height << " sigma " << sigma;
  }
}

TEST(Image, HueTurnsWholeCircleAndKeepsGrey) {
  // A third of a turn (85 of 255) takes pure red to pure green; grey has no hue.
  Picture picture{3, 1, {255, 0, 0, 10, 10, 10, 0, 0, 255}};
  auto planes = planes_of(picture);
  adjust_hue(planes, 1.0 / 3);
  EXPECT_EQ(interleaved(planes), (Bytes{0, 255, 0, 10, 10, 10, 255, 0, 0}));
}

TEST(Image, FactorOneChangesNothing) {
  const auto picture = noise(37, 5, 9);
  auto planes = planes_of(picture);
  adjust_brightness(planes, 1);
  adjust_contrast(planes, 1);
  adjust_saturation(planes, 1);
  EXPECT_EQ(interleaved(planes), picture.rgb);
}

TEST(Image, NormaliseWritesChannelsLast) {
  const auto picture = noise(33, 3, 11);
  const auto planes = planes_of(picture);
  const float mean[3] = {0.485F, 0.456F, 0.406F}, std[3] = {0.229F, 0.224F, 0.225F};
  std::vector<float> out(picture.rgb.size());
  normalise(planes, mean, std, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double wanted = (picture.rgb[i] / 255.0 - static_cast<double>(mean[i % 3])) / static_cast<double>(std[i % 3]);
    ASSERT_NEAR(static_cast<double>(out[i]), wanted, 1e-6);
  }
}

TEST(Image, ProductsAreRoundedBeforeTheyAreAdded) {
  // As Pillow's are, and as a device's: a compiler may not make one operation with one rounding of the two.
  Random random(12, Purpose::test);
  int ties = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto factor = static_cast<float>(random.uniform(0, 2));
    const auto from = static_cast<std::uint8_t>(random.below(256)), to = static_cast<std::uint8_t>(random.below(256));
    const volatile float product = factor * static_cast<float>(to - from);
    const float sum = static_cast<float>(from) + product;
    const float fused = std::fma(factor, static_cast<float>(to - from), static_cast<float>(from));
    ties += sum != fused ? 1 : 0;
    // Half of the picture of either colour and a mean level that is neither: contrast about it.
    Picture picture{2, 1, {from, from, from, to, to, to}};
    auto planes = planes_of(picture);
    const int level = (from + to + 1) / 2;
    adjust_contrast(planes, factor);
    const volatile float about = factor * static_cast<float>(to - level);
    const float wanted = std::clamp(static_cast<float>(level) + about, 0.0F, 255.0F);
    ASSERT_EQ(interleaved(planes)[3], static_cast<std::uint8_t>(wanted))
        << factor << " " << int{from} << " " << int{to};
    const float mean[3] = {0.3F, 0.4F, 0.5F}, std[3] = {factor + 0.1F, 0.2F, 0.3F};
    float out[6];
    normalise(planes_of(picture), mean, std, out);
    const float scale = 1.0F / (255.0F * std[0]), offset = -mean[0] / std[0];
    const volatile float scaled = static_cast<float>(to) * scale;
    ASSERT_EQ(out[3], scaled + offset);
  }
  EXPECT_GT(ties, 100);  // else nothing was asked
}

}  // namespace
}  // namespace seer::kernels
