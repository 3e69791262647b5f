// SPDX-License-Identifier: Apache-2.0
// EXIF orientations in all formats that have them, and animations with a single frame.
#include <gtest/gtest.h>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/data/image.hpp"
#include "seer/data/shard.hpp"
#include "temporary.hpp"
#include "tiny_png.hpp"

namespace seer::data {
namespace {

using Blob = std::vector<std::uint8_t>;

Blob file(const std::string& name) {
  return test::read_bytes(std::string(SEER_TEST_DATA) + "/images/" + name);
}

Blob text(const std::string& s) {
  return {s.begin(), s.end()};
}

Blob joined(std::initializer_list<Blob> parts) {
  Blob out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

Blob number(std::uint32_t value, int bytes, bool little) {
  Blob out;
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<std::uint8_t>(value >> (8 * (little ? i : bytes - 1 - i))));
  }
  return out;
}

/// A directory of one entry, tag 0x0112.
Blob exif(std::uint32_t orientation, bool little, bool prefix = false) {
  return joined({prefix ? text(std::string("Exif\0\0", 6)) : Blob{}, text(little ? "II" : "MM"), number(42, 2, little),
                 number(8, 4, little), number(1, 2, little), number(0x0112, 2, little), number(3, 2, little),
                 number(1, 4, little), number(orientation, 2, little), number(0, 2, little), number(0, 4, little)});
}

Blob jpeg_with(const Blob& block) {
  auto jpeg = file("rgb.jpg");
  const auto segment = joined({{0xFF, 0xE1}, number(static_cast<std::uint32_t>(block.size() + 2), 2, false), block});
  jpeg.insert(jpeg.begin() + 2, segment.begin(), segment.end());
  return jpeg;
}

Blob png_with(const std::string& type, const Blob& block, bool after_pixels) {
  auto png = file("rgb.png");
  Blob chunk;
  test::put_chunk(chunk, type, block);
  png.insert(after_pixels ? png.end() - 12 : png.begin() + 8 + 25, chunk.begin(), chunk.end());
  return png;
}

Blob riff_chunk(const std::string& type, const Blob& body) {
  return joined({text(type), number(static_cast<std::uint32_t>(body.size()), 4, true), body,
                 body.size() % 2 != 0 ? Blob{0} : Blob{}});
}

Blob riff(const Blob& chunks) {
  return riff_chunk("RIFF", joined({text("WEBP"), chunks}));
}

Blob canvas(std::uint8_t flags, std::uint32_t width, std::uint32_t height) {
  return riff_chunk("VP8X", joined({number(flags, 4, true), number(width - 1, 3, true), number(height - 1, 3, true)}));
}

/// The picture of a WebP file of one chunk, as that chunk.
Blob picture_of(const std::string& name) {
  const auto webp = file(name);
  return {webp.begin() + 12, webp.end()};
}

Blob webp_with(const Blob& block) {
  return riff(joined({canvas(0x08, 24, 16), picture_of("lossless.webp"), riff_chunk("EXIF", block)}));
}

Blob animation(int frames, std::uint32_t width, std::uint32_t height, std::uint32_t x, std::uint32_t y) {
  auto chunks =
      joined({canvas(0x02, width, height), riff_chunk("ANIM", joined({number(0xFFFFFFFF, 4, true), {0, 0}}))});
  const auto frame = riff_chunk("ANMF", joined({number(x / 2, 3, true),
                                                number(y / 2, 3, true),
                                                number(23, 3, true),
                                                number(15, 3, true),
                                                number(100, 3, true),
                                                {0},
                                                picture_of("lossless.webp")}));
  for (int i = 0; i < frames; ++i) chunks.insert(chunks.end(), frame.begin(), frame.end());
  return riff(chunks);
}

Image decoded(const Blob& bytes) {
  Image out;
  decode(bytes, 1'000'000, out);
  return out;
}

std::string error_of(const Blob& bytes) {
  try {
    decoded(bytes);
  } catch (const NotSupported& e) {
    return std::string("not supported: ") + e.what();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

/// As EXIF defines it: where in the picture the first stored row and the first stored column lie.
Image upright(const Image& stored, int orientation) {
  struct Sides {
    char row, column;
  };
  constexpr Sides kSides[] = {{'T', 'L'}, {'T', 'R'}, {'B', 'R'}, {'B', 'L'},
                              {'L', 'T'}, {'R', 'T'}, {'R', 'B'}, {'L', 'B'}};
  const auto [row_side, column_side] = kSides[orientation - 1];
  Image out;
  const bool turned = row_side == 'L' || row_side == 'R';
  out.width = turned ? stored.height : stored.width;
  out.height = turned ? stored.width : stored.height;
  out.rgb.resize(stored.rgb.size());
  for (std::int64_t row = 0; row < stored.height; ++row) {
    for (std::int64_t column = 0; column < stored.width; ++column) {
      std::int64_t x = 0, y = 0;
      for (const auto& [side, index] : {std::pair(row_side, row), std::pair(column_side, column)}) {
        if (side == 'T') y = index;
        if (side == 'B') y = out.height - 1 - index;
        if (side == 'L') x = index;
        if (side == 'R') x = out.width - 1 - index;
      }
      for (std::int64_t c = 0; c < 3; ++c) {
        out.rgb[static_cast<std::size_t>(3 * (y * out.width + x) + c)] =
            stored.rgb[static_cast<std::size_t>(3 * (row * stored.width + column) + c)];
      }
    }
  }
  return out;
}

void expect_picture(const Blob& bytes, const Image& wanted, int orientation) {
  const auto header = read_header(bytes);
  EXPECT_EQ(header.orientation, orientation);
  EXPECT_EQ(header.width, wanted.width);
  EXPECT_EQ(header.height, wanted.height);
  const auto out = decoded(bytes);
  EXPECT_EQ(out.width, wanted.width);
  EXPECT_EQ(out.height, wanted.height);
  EXPECT_TRUE(out.rgb == wanted.rgb);
}

TEST(Orientation, IsAppliedInEveryFormat) {
  const auto jpeg = decoded(file("rgb.jpg")), png = decoded(file("rgb.png")), webp = decoded(file("lossless.webp"));
  for (int o = 1; o <= 8; ++o) {
    for (const bool little : {false, true}) {
      SCOPED_TRACE(testing::Message() << "orientation " << o << (little ? ", II" : ", MM"));
      const auto value = static_cast<std::uint32_t>(o);
      expect_picture(jpeg_with(exif(value, little, true)), upright(jpeg, o), o);
      for (const bool prefix : {false, true}) {
        expect_picture(webp_with(exif(value, little, prefix)), upright(webp, o), o);
        for (const bool after : {false, true}) {
          expect_picture(png_with("eXIf", exif(value, little, prefix), after), upright(png, o), o);
        }
      }
    }
  }
}

TEST(Orientation, NonsenseIsIgnored) {
  const auto png = decoded(file("rgb.png")), webp = decoded(file("lossless.webp"));
  const auto good = exif(6, true);
  std::vector<Blob> blocks = {{}, text("Exif"), exif(0, true), exif(9, false), exif(6 << 8, true)};
  for (std::size_t cut = 0; cut < 22; ++cut) blocks.push_back({good.begin(), good.begin() + static_cast<long>(cut)});
  for (const auto& block : blocks) {
    SCOPED_TRACE(testing::Message() << block.size() << " bytes");
    if (!block.empty()) expect_picture(png_with("eXIf", block, false), png, 1);  // an empty chunk stops libspng
    expect_picture(png_with("eXIf", block, true), png, 1);
    expect_picture(webp_with(block), webp, 1);
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int value : {0, 1, 9, 0x7F, 0x80, 0xFF}) {
      auto changed = good;
      changed[at] = static_cast<std::uint8_t>(value);
      EXPECT_EQ(error_of(png_with("eXIf", changed, true)), "no error");
      EXPECT_EQ(error_of(webp_with(changed)), "no error");
    }
  }
  auto wrong_checksum = png_with("eXIf", good, false);
  wrong_checksum[8 + 25 + 8 + good.size()] ^= 1;
  expect_picture(wrong_checksum, png, 1);
  auto twice = png_with("eXIf", good, false);
  twice.insert(twice.begin() + 8 + 25, twice.begin() + 8 + 25,
               twice.begin() + 8 + 25 + 12 + static_cast<long>(good.size()));
  expect_picture(twice, upright(png, 6), 6);
  // Chunks with a wrong length must not cause reads outside the file.
  auto lying = png_with("eXIf", good, false);
  for (int i = 0; i < 4; ++i) lying[static_cast<std::size_t>(8 + 25 + i)] = 0xFF;
  EXPECT_EQ(read_header(lying).orientation, 1);
}

TEST(Orientation, OlderShardsWithSidesAsStoredAreNotDamaged) {
  const auto alone = comm::Communicator::world();
  const test::TemporaryFolder folder;
  const auto verified = [&](const Blob& bytes, std::uint32_t width, std::uint32_t height) {
    ShardWriter writer(folder / "s.h5", {{bytes.size(), checksum(bytes.data(), bytes.size()), width, height, -1}}, {});
    writer.append(bytes);
    writer.finish();
    writer.publish();
    return inspect_hdf5(folder / "s.h5", true, alone).find("\"verified\":true") != std::string::npos;
  };
  for (const auto& bytes : {png_with("eXIf", exif(6, true), true), webp_with(exif(6, true))}) {
    EXPECT_TRUE(verified(bytes, 16, 24));
    EXPECT_TRUE(verified(bytes, 24, 16));
    EXPECT_FALSE(verified(bytes, 24, 17));
  }
  EXPECT_FALSE(verified(jpeg_with(exif(6, true, true)), 24, 16));
  EXPECT_FALSE(verified(png_with("eXIf", exif(3, true), true), 16, 24));
}

TEST(Animation, OfOneFrameIsAStill) {
  const auto still = decoded(file("lossless.webp"));
  expect_picture(animation(1, 24, 16, 0, 0), still, 1);
  const auto placed = decoded(animation(1, 30, 20, 4, 2));
  ASSERT_EQ(placed.width, 30);
  ASSERT_EQ(placed.height, 20);
  for (std::int64_t y = 0; y < 20; ++y) {
    for (std::int64_t x = 0; x < 30; ++x) {
      const bool inside = x >= 4 && x < 28 && y >= 2 && y < 18;
      const int wanted = inside ? still.rgb[static_cast<std::size_t>(3 * ((y - 2) * 24 + x - 4))] : 0;
      ASSERT_EQ(placed.rgb[static_cast<std::size_t>(3 * (y * 30 + x))], wanted) << x << ", " << y;
    }
  }
  EXPECT_EQ(error_of(animation(3, 24, 16, 0, 0)), "not supported: animated WebP (3 frames)");
  EXPECT_EQ(error_of(animation(0, 24, 16, 0, 0)).substr(0, 6), "WebP: ");
  const auto whole = animation(1, 24, 16, 0, 0);
  for (std::size_t cut = 0; cut < whole.size(); ++cut) {
    const auto why = error_of({whole.begin(), whole.begin() + static_cast<long>(cut)});
    ASSERT_TRUE(why != "no error" && !why.starts_with("not supported")) << "cut at " << cut << ": " << why;
  }
}

TEST(Animation, OfPngIsItsStillPicture) {
  auto animated = png_with("acTL", joined({number(2, 4, false), number(0, 4, false)}), false);
  expect_picture(animated, decoded(file("rgb.png")), 1);
}

TEST(NotSupportedImage, IsNotCalledBroken) {
  auto jpeg = file("rgb.jpg");
  for (std::size_t at = 2; at + 5 < jpeg.size(); ++at) {
    if (jpeg[at] != 0xFF || jpeg[at + 1] != 0xC0) continue;
    jpeg[at + 4] = 12;
    EXPECT_EQ(error_of(jpeg).substr(0, 14), "not supported:") << error_of(jpeg);
    jpeg[at + 4] = 8;
    jpeg[at + 1] = 0xC3;
    EXPECT_EQ(error_of(jpeg).substr(0, 14), "not supported:") << error_of(jpeg);
    return;
  }
  FAIL() << "no frame in rgb.jpg";
}

}  // namespace
}  // namespace seer::data
