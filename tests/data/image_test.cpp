// SPDX-License-Identifier: Apache-2.0
// Decoding against Pillow's pixels (tests/data/images, made by make_images.py there), and of malicious files.
#include "seer/data/image.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "../../src/data/image_codecs.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "temporary.hpp"

namespace seer::data {
namespace {

constexpr std::int64_t kLimit = 50'000'000;

std::vector<std::uint8_t> file(const std::string& name) {
  auto bytes = test::read_bytes(std::string(SEER_TEST_DATA) + "/images/" + name);
  EXPECT_FALSE(bytes.empty()) << name;
  return bytes;
}

std::string error_of(const std::vector<std::uint8_t>& bytes, std::int64_t limit = kLimit) {
  Image out;
  try {
    decode(bytes, limit, out);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    return e.what();
  }
  return "no error";
}

std::size_t find(const std::vector<std::uint8_t>& bytes, const std::vector<std::uint8_t>& wanted) {
  const auto at = std::search(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
  EXPECT_NE(at, bytes.end());
  return static_cast<std::size_t>(at - bytes.begin());
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Case {
  const char* name;
  ImageKind kind;
  int orientation = 1;
};

class AgreesWithPillow : public testing::TestWithParam<Case> {};

TEST_P(AgreesWithPillow, PixelForPixel) {
  const auto& c = GetParam();
  const auto bytes = file(c.name);
  const auto wanted = file(std::string(c.name) + ".rgb");
  const auto header = read_header(bytes);
  EXPECT_EQ(header.kind, c.kind);
  EXPECT_EQ(header.orientation, c.orientation);
  Image out;
  out.rgb.assign(5, 99);  // a reused buffer holds old values
  decode(bytes, kLimit, out);
  EXPECT_EQ(out.width, c.orientation >= 5 ? 16 : 24);
  EXPECT_EQ(out.height, c.orientation >= 5 ? 24 : 16);
  EXPECT_EQ(header.width, out.width);
  EXPECT_EQ(header.height, out.height);
  ASSERT_EQ(out.rgb.size(), wanted.size());
  int worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) worst = std::max(worst, std::abs(out.rgb[i] - wanted[i]));
  // Lossy formats: another version of their library may round differently.
  EXPECT_LE(worst, c.kind == ImageKind::png ? 0 : 2);
}

INSTANTIATE_TEST_SUITE_P(
    Image, AgreesWithPillow,
    testing::Values(Case{"rgb.jpg", ImageKind::jpeg}, Case{"grey.jpg", ImageKind::jpeg},
                    Case{"progressive.jpg", ImageKind::jpeg}, Case{"arithmetic.jpg", ImageKind::jpeg},
                    Case{"cmyk.jpg", ImageKind::jpeg}, Case{"ycck.jpg", ImageKind::jpeg},
                    Case{"orientation2.jpg", ImageKind::jpeg, 2}, Case{"orientation3.jpg", ImageKind::jpeg, 3},
                    Case{"orientation4.jpg", ImageKind::jpeg, 4}, Case{"orientation5.jpg", ImageKind::jpeg, 5},
                    Case{"orientation6.jpg", ImageKind::jpeg, 6}, Case{"orientation7.jpg", ImageKind::jpeg, 7},
                    Case{"orientation8.jpg", ImageKind::jpeg, 8}, Case{"rgb.png", ImageKind::png},
                    Case{"palette.png", ImageKind::png}, Case{"rgba.png", ImageKind::png},
                    Case{"grey_alpha.png", ImageKind::png}, Case{"bilevel.png", ImageKind::png},
                    Case{"interlaced.png", ImageKind::png}, Case{"rgb16.png", ImageKind::png},
                    Case{"grey16.png", ImageKind::png}, Case{"lossy.webp", ImageKind::webp},
                    Case{"lossless.webp", ImageKind::webp}, Case{"alpha.webp", ImageKind::webp}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

TEST(Image, WhatIsNotOursIsRefused) {
  EXPECT_TRUE(contains(error_of({}), "empty"));
  EXPECT_TRUE(contains(error_of(file("picture.gif")), "not a JPEG, PNG or WebP"));
  EXPECT_EQ(read_header(file("picture.gif")).kind, ImageKind::unknown);
  EXPECT_TRUE(contains(error_of(file("animated.webp")), "animated WebP (")) << error_of(file("animated.webp"));
}

TEST(Image, EveryCutOffJpegIsRefused) {
  for (const char* name : {"rgb.jpg", "progressive.jpg", "arithmetic.jpg", "cmyk.jpg"}) {
    const auto whole = file(name);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      ASSERT_NE(error_of({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}), "no error")
          << name << " cut at " << length;
    }
  }
}

TEST(Image, CutOffPngAndWebpAreRefused) {
  for (const char* name : {"rgb.png", "interlaced.png", "lossy.webp", "lossless.webp"}) {
    const auto whole = file(name);
    // PNG: what follows the last pixel (two checksums, the empty end chunk) may be missing.
    const std::size_t tail = std::string(name).ends_with(".png") ? 4 + 4 + 12 : 1;
    for (std::size_t length = 0; length + tail < whole.size(); ++length) {
      ASSERT_NE(error_of({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}), "no error")
          << name << " cut at " << length;
    }
  }
}

TEST(Image, SizeIsCheckedBeforeAnythingIsAllocated) {
  EXPECT_TRUE(contains(error_of(file("bomb.png")), "60000 x 60000 pixels, over the limit"));
  auto jpeg = file("rgb.jpg");
  const auto frame = find(jpeg, {0xFF, 0xC0});
  for (std::size_t i = 5; i < 9; ++i) jpeg.at(frame + i) = 0xF0;
  EXPECT_TRUE(contains(error_of(jpeg), "over the limit of 50000000"));
  EXPECT_EQ(read_header(jpeg).width, 0xF0F0);
  EXPECT_TRUE(contains(error_of(file("lossy.webp"), 24 * 16 - 1), "over the limit of 383"));
  EXPECT_EQ(error_of(file("lossy.webp"), 24 * 16), "no error");
}

TEST(Image, TwelveBitAndLosslessJpegAreNamed) {
  auto jpeg = file("rgb.jpg");
  const auto frame = find(jpeg, {0xFF, 0xC0});
  auto twelve = jpeg;
  twelve.at(frame + 4) = 12;
  EXPECT_TRUE(contains(error_of(twelve), "12")) << error_of(twelve);
  auto lossless = jpeg;
  lossless.at(frame + 1) = 0xC3;
  EXPECT_TRUE(contains(error_of(lossless), "Unsupported JPEG process")) << error_of(lossless);
}

TEST(Image, ScansWithoutEndAreRefused) {
  const auto jpeg = file("progressive.jpg");
  // Repeats the first scan (a DC scan) many times. libjpeg accepts this, and each scan costs a pass.
  const auto scan = jpeg.begin() + static_cast<std::ptrdiff_t>(find(jpeg, {0xFF, 0xDA}));
  auto end = scan + 2;
  while (!(end[0] == 0xFF && end[1] != 0)) ++end;
  std::vector<std::uint8_t> bomb(jpeg.begin(), scan);
  for (int i = 0; i < 2000; ++i) bomb.insert(bomb.end(), scan, end);
  bomb.insert(bomb.end(), end, jpeg.end());
  EXPECT_TRUE(contains(error_of(bomb), "more than 500 scans")) << error_of(bomb);
}

TEST(Image, ExifIsReadWithinItsBounds) {
  auto jpeg = file("orientation6.jpg");
  const auto tiff = find(jpeg, {'E', 'x', 'i', 'f'}) + 6;
  for (std::size_t i = 0; i < 26; ++i) {  // every byte of the header and the entry, with extreme values
    for (int value : {0, 1, 9, 0x7F, 0x80, 0xFF}) {
      auto changed = jpeg;
      changed[tiff + i] = static_cast<std::uint8_t>(value);
      const auto header = read_header(changed);
      ASSERT_GE(header.orientation, 1);
      ASSERT_LE(header.orientation, 8);
      ASSERT_EQ(error_of(changed), "no error");
    }
  }
}

TEST(Image, DamagedFilesEndInAnErrorOrAPicture) {
  std::mt19937 random(5);  // repeatable
  Image out;
  for (const char* name :
       {"rgb.jpg", "progressive.jpg", "arithmetic.jpg", "ycck.jpg", "orientation6.jpg", "palette.png", "interlaced.png",
        "rgb16.png", "lossy.webp", "lossless.webp", "animated.webp"}) {
    const auto whole = file(name);
    for (int trial = 0; trial < 300; ++trial) {
      auto bytes = whole;
      const auto changes = 1 + random() % 8;
      for (unsigned i = 0; i < changes; ++i) bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
      if (random() % 4 == 0) bytes.resize(random() % bytes.size());
      try {
        decode(bytes, 1'000'000, out);
        ASSERT_EQ(out.rgb.size(), static_cast<std::size_t>(3 * out.width * out.height));
      } catch (const Error& e) {
        ASSERT_EQ(e.code(), ExitCode::file);
      }
    }
  }
}

TEST(PlainJpeg, IsOneThatNoTwoDecodersReadDifferently) {
  for (const char* name : {"rgb.jpg", "grey.jpg"}) {
    const auto bytes = file(name);
    const auto plain = plain_jpeg(bytes);
    ASSERT_TRUE(plain) << name;
    EXPECT_EQ(plain->width, 24);
    EXPECT_EQ(plain->height, 16);
    auto padded = bytes;
    padded.resize(padded.size() + 40, 0);
    EXPECT_TRUE(plain_jpeg(padded)) << name;
    for (std::size_t cut = 1; cut < bytes.size(); ++cut)
      EXPECT_FALSE(plain_jpeg(std::span(bytes).first(bytes.size() - cut))) << name << " without its last " << cut;
  }
  for (const char* name : {"progressive.jpg", "arithmetic.jpg", "cmyk.jpg", "ycck.jpg", "orientation2.jpg",
                           "orientation6.jpg", "rgb.png", "lossy.webp"})
    EXPECT_FALSE(plain_jpeg(file(name))) << name;
  // Changes one byte of the header each time. The file may stay plain, but its size must be the one that libjpeg reads.
  const auto bytes = file("rgb.jpg");
  const auto scan = find(bytes, {0xFF, 0xDA});
  const auto frame = find(bytes, {0xFF, 0xC0});
  for (std::size_t at = 2; at < scan + 8; ++at) {
    for (const int value : {0, 1, 0x22, 0x7F, 0xC2, 0xDA, 0xFF}) {
      auto changed = bytes;
      changed[at] = static_cast<std::uint8_t>(value);
      const auto plain = plain_jpeg(changed);
      if (!plain || (at >= frame && at < scan)) continue;
      const auto header = read_header(changed);
      EXPECT_EQ(plain->width, header.width) << at;
      EXPECT_EQ(plain->height, header.height) << at;
    }
  }
  auto twelve = bytes;
  twelve.at(frame + 4) = 12;
  EXPECT_FALSE(plain_jpeg(twelve));
  auto sampled_by_four = bytes;
  sampled_by_four.at(frame + 11) = 0x41;
  EXPECT_FALSE(plain_jpeg(sampled_by_four));
}

}  // namespace
}  // namespace seer::data
