// SPDX-License-Identifier: Apache-2.0
#include "seer/data/copies.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>
#include <set>

#include "generation.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/random.hpp"
#include "seer/data/image_names.hpp"
#include "seer/kernels/image.hpp"

namespace seer::data {
namespace {

constexpr std::array kCrops = {10, 15, 20, 30, 40, 50, 60, 70, 80};  // per cent cut off
constexpr std::array kQualities = {75, 50, 30, 20, 15, 10, 8, 5, 3};
constexpr int kCropQuality = 90, kStrongQuality = 75;
constexpr std::int64_t kLeastSide = 64, kCopiesOfShard = 4096;

std::uint8_t* pixel(Image& image, std::int64_t y, std::int64_t x) {
  return image.rgb.data() + 3 * (y * image.width + x);
}

kernels::Planes planes_of(const Image& image, std::int64_t width, std::int64_t height) {
  kernels::Planes out;
  kernels::ImageScratch scratch;
  kernels::crop_resize(image.rgb.data(), image.width * 3, {0, 0, image.width, image.height}, width, height,
                       kernels::Flip::no, scratch, out);
  return out;
}
Image image_of(const kernels::Planes& planes) {
  Image out{planes.width, planes.height, std::vector<std::uint8_t>(3 * planes.width * planes.height)};
  kernels::to_interleaved(planes, out.rgb.data());
  return out;
}

Image cropped(const Image& image, int per_cent, Random& random) {
  const double side = std::sqrt(1 - per_cent / 100.0);
  const auto kept = [&](std::int64_t whole) {
    return std::max<std::int64_t>(1, std::lround(side * static_cast<double>(whole)));
  };
  Image out{kept(image.width), kept(image.height), {}};
  const auto left = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(image.width - out.width + 1)));
  const auto top = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(image.height - out.height + 1)));
  for (std::int64_t y = 0; y < out.height; ++y) {
    const auto* row = image.rgb.data() + 3 * ((top + y) * image.width + left);
    out.rgb.insert(out.rgb.end(), row, row + 3 * out.width);
  }
  return out;
}

Image shrunk(const Image& image) {
  const auto shorter = std::min(image.width, image.height);
  const auto wanted = std::max(shorter / 4, std::min(shorter, kLeastSide));
  const auto scaled = [&](std::int64_t side) { return std::max<std::int64_t>(1, side * wanted / shorter); };
  return image_of(planes_of(image, scaled(image.width), scaled(image.height)));
}

Image blurred(const Image& image, Random& random) {
  auto planes = planes_of(image, image.width, image.height);
  kernels::ImageScratch scratch;
  const auto shorter = static_cast<double>(std::min(image.width, image.height));
  kernels::gaussian_blur(planes, static_cast<float>(std::max(1.0, random.uniform(0.015, 0.03) * shorter)), scratch);
  return image_of(planes);
}

/// Another contrast and brightness.
Image faded(const Image& image, Random& random) {
  auto planes = planes_of(image, image.width, image.height);
  const bool less = random.uniform() < 0.5;
  kernels::adjust_contrast(planes, static_cast<float>(less ? random.uniform(0.25, 0.5) : random.uniform(1.8, 2.6)));
  kernels::adjust_brightness(planes, static_cast<float>(random.uniform(0.6, 1.5)));
  return image_of(planes);
}

/// About the centre, by 10 to 30 degrees; bilinear; black outside.
Image rotated(const Image& image, Random& random) {
  const double sign = random.uniform() < 0.5 ? -1 : 1;
  const double angle = sign * random.uniform(10, 30) * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  const double middle_x = static_cast<double>(image.width - 1) / 2,
               middle_y = static_cast<double>(image.height - 1) / 2;
  Image out{image.width, image.height, std::vector<std::uint8_t>(image.rgb.size())};
  for (std::int64_t y = 0; y < out.height; ++y) {
    for (std::int64_t x = 0; x < out.width; ++x) {
      const double dx = static_cast<double>(x) - middle_x, dy = static_cast<double>(y) - middle_y;
      const double from_x = middle_x + c * dx + s * dy, from_y = middle_y - s * dx + c * dy;
      const auto left = static_cast<std::int64_t>(std::floor(from_x)),
                 top = static_cast<std::int64_t>(std::floor(from_y));
      if (left < 0 || top < 0 || left + 1 >= image.width || top + 1 >= image.height) continue;
      const double u = from_x - static_cast<double>(left), v = from_y - static_cast<double>(top);
      const auto* a = image.rgb.data() + 3 * (top * image.width + left);
      const auto* b = a + 3 * image.width;
      for (int k = 0; k < 3; ++k)
        pixel(out, y, x)[k] = static_cast<std::uint8_t>(
            std::lround(std::lerp(std::lerp(a[k], a[k + 3], u), std::lerp(b[k], b[k + 3], u), v)));
    }
  }
  return out;
}

using Colour = std::array<std::uint8_t, 3>;
Colour some_colour(Random& random) {
  Colour colour{};
  for (auto& channel : colour) channel = static_cast<std::uint8_t>(random.below(256));
  return colour;
}

void fill(Image& image, std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height, Colour colour) {
  for (auto y = std::max<std::int64_t>(0, top); y < std::min(image.height, top + height); ++y)
    for (auto x = std::max<std::int64_t>(0, left); x < std::min(image.width, left + width); ++x)
      std::ranges::copy(colour, pixel(image, y, x));
}

/// Broad strokes of a brush, each a straight line of squares.
Image painted(Image image, Random& random) {
  constexpr int kStrokes = 7;
  const auto shorter = static_cast<double>(std::min(image.width, image.height));
  for (int stroke = 0; stroke < kStrokes; ++stroke) {
    const auto colour = some_colour(random);
    const auto brush = std::max<std::int64_t>(1, std::lround(shorter * random.uniform(0.06, 0.14)));
    const double from_x = random.uniform() * static_cast<double>(image.width),
                 to_x = random.uniform() * static_cast<double>(image.width);
    const double from_y = random.uniform() * static_cast<double>(image.height),
                 to_y = random.uniform() * static_cast<double>(image.height);
    const auto steps = 1 + std::lround(std::hypot(to_x - from_x, to_y - from_y));
    for (long i = 0; i <= steps; ++i) {
      const double t = static_cast<double>(i) / static_cast<double>(steps);
      fill(image, std::lround(std::lerp(from_x, to_x, t)) - brush / 2,
           std::lround(std::lerp(from_y, to_y, t)) - brush / 2, brush, brush, colour);
    }
  }
  return image;
}

/// Lines of digits in one colour over a third of the image.
Image written_on(Image image, Random& random) {
  // Five rows of three pixels for each digit.
  constexpr std::array<std::array<unsigned, 5>, 10> kDigits = {{{7, 5, 5, 5, 7},
                                                                {2, 6, 2, 2, 7},
                                                                {7, 1, 7, 4, 7},
                                                                {7, 1, 3, 1, 7},
                                                                {5, 5, 7, 1, 1},
                                                                {7, 4, 7, 1, 7},
                                                                {7, 4, 7, 5, 7},
                                                                {7, 1, 2, 2, 2},
                                                                {7, 5, 7, 5, 7},
                                                                {7, 5, 7, 1, 7}}};
  const auto dot = std::max<std::int64_t>(1, std::min(image.width, image.height) / 32);
  const auto colour = some_colour(random);
  for (std::int64_t top = dot * static_cast<std::int64_t>(1 + random.below(4)); top < image.height; top += 9 * dot) {
    for (std::int64_t left = dot; left + 3 * dot < image.width; left += 4 * dot) {
      const auto& digit = kDigits[random.below(10)];
      for (std::int64_t y = 0; y < 5; ++y)
        for (std::int64_t x = 0; x < 3; ++x)
          if ((digit[static_cast<std::size_t>(y)] >> (2 - x) & 1U) != 0)
            fill(image, left + x * dot, top + y * dot, dot, dot, colour);
    }
  }
  return image;
}

struct Kind {
  std::string name;
  int quality;
  std::function<Image(const Image&, Random&)> change;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = [] {
    std::vector<Kind> out;
    for (const int cut : kCrops)
      out.push_back({fmt::format("crop-{}", cut), kCropQuality,
                     [cut](const Image& image, Random& random) { return cropped(image, cut, random); }});
    for (const int quality : kQualities)
      out.push_back(
          {fmt::format("jpeg-{}", quality), quality, [](const Image& image, Random&) { return shrunk(image); }});
    out.push_back({"strong-blur", kStrongQuality, blurred});
    out.push_back({"strong-rotation", kStrongQuality, rotated});
    out.push_back({"strong-contrast", kStrongQuality, faded});
    out.push_back({"strong-paint", kStrongQuality, painted});
    out.push_back({"strong-text", kStrongQuality, written_on});
    return out;
  }();
  return all;
}

/// The originals' names, or their numbers where names are missing or repeat.
std::vector<std::string> distinct_names(const DataSet& data, std::uint64_t images) {
  auto names = image_names(data, 0, images);
  std::multiset<std::string> seen(names.begin(), names.end());
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i].empty() || seen.count(names[i]) > 1) names[i] = fmt::format("image {}", i);
  return names;
}

}  // namespace

const std::vector<std::string>& copy_kinds() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& kind : kinds()) out.push_back(kind.name);
    return out;
  }();
  return names;
}

Copy copy_of(const Image& original, std::size_t kind, std::uint64_t seed, std::uint64_t index) {
  Random random(seed, Purpose::synthetic, index, static_cast<std::uint32_t>(kind) + 1);  // synth itself has 0 there
  const auto& of = kinds().at(kind);
  return {of.change(original, random), of.quality};
}

CopyResult write_copies(const DataSet& data, const CopyOptions& o, const comm::Communicator& comm) {
  const auto images = o.images > 0 ? std::min(static_cast<std::uint64_t>(o.images), data.images()) : data.images();
  Generation g;
  Checksum all;
  comm::agree(comm, "the originals", [&] {
    ensure(o.existing != Existing::append, "copies make whole sets");
    g.classes = distinct_names(data, images);
    for (std::uint64_t i = 0; i < images; i += kCopiesOfShard)
      for (const auto& place : data.places(i, std::min<std::uint64_t>(kCopiesOfShard, images - i)))
        all.add(&place.checksum, sizeof place.checksum);
  });
  g.folder = o.folder;
  g.existing = o.existing;
  g.per_shard = kCopiesOfShard;
  g.max_pixels = static_cast<std::uint64_t>(data.max_pixels());

  std::uint64_t at = images;  // number of `original`; none yet
  std::vector<std::uint8_t> bytes;
  Image original;
  const auto read = [&](std::uint64_t i) {
    if (at == i) return;
    at = images;
    const auto place = data.read_image(i, bytes);
    try {
      require_intact(place, bytes);
      decode(bytes, data.max_pixels(), original);
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("{}: {}", data.describe(i), error.what()), error.remedy());
    }
    at = i;
  };
  const auto identity = [&](std::int64_t, std::int64_t) {
    return fmt::format("{} 1: {} {} {:016x}", g.name, o.seed, images, all.value());
  };
  g.identity = identity;

  CopyResult result;
  g.what = "writing originals";
  g.name = "originals";
  g.images = static_cast<std::int64_t>(images);
  g.make = [&](std::int64_t i) {
    read(static_cast<std::uint64_t>(i));
    return GeneratedImage{{bytes.begin(), bytes.end()},
                          static_cast<std::uint32_t>(original.width),
                          static_cast<std::uint32_t>(original.height),
                          static_cast<std::int32_t>(i),
                          g.classes[static_cast<std::size_t>(i)]};
  };
  result.originals = generate(g, comm);
  const auto count = static_cast<std::int64_t>(kinds().size());
  g.what = "writing copies";
  g.name = "copies";
  g.images *= count;
  g.make = [&](std::int64_t number) {
    const auto i = number / count;
    const auto kind = static_cast<std::size_t>(number % count);
    read(static_cast<std::uint64_t>(i));
    const auto copy = copy_of(original, kind, o.seed, static_cast<std::uint64_t>(i));
    return GeneratedImage{encode_jpeg(copy.image, copy.quality), static_cast<std::uint32_t>(copy.image.width),
                          static_cast<std::uint32_t>(copy.image.height), static_cast<std::int32_t>(i),
                          g.classes[static_cast<std::size_t>(i)] + "+" + kinds()[kind].name};
  };
  result.copies = generate(g, comm);
  return result;
}

}  // namespace seer::data
