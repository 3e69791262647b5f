// SPDX-License-Identifier: Apache-2.0
#include "seer/data/copies.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "seer/data/image_names.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

/// Mean of the absolute differences of two images of one size.
double difference(const Image& a, const Image& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / static_cast<double>(a.rgb.size());
}

TEST(Copies, EachKindChangesAnImageInItsWay) {
  auto original = synth_image(1, 5, 3, 120);
  original.rgb.resize(3 * 120 * 80);  // 120 x 80
  original.height = 80;
  const auto& kinds = copy_kinds();
  EXPECT_EQ(std::set<std::string>(kinds.begin(), kinds.end()).size(), 23U);
  std::set<std::vector<std::uint8_t>> strong;
  for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
    const auto copy = copy_of(original, kind, 4, 7), again = copy_of(original, kind, 4, 7);
    const auto& image = copy.image;
    EXPECT_EQ(image.rgb, again.image.rgb) << kinds[kind];
    EXPECT_EQ(image.rgb.size(), static_cast<std::size_t>(3 * image.width * image.height));
    const auto number = [&] { return std::stoi(kinds[kind].substr(kinds[kind].find('-') + 1)); };
    if (kinds[kind].starts_with("crop-")) {
      const auto area = static_cast<double>(image.width * image.height) / (120 * 80);
      EXPECT_NEAR(area, 1 - number() / 100.0, 0.01) << kinds[kind];
      EXPECT_NE(image.rgb, copy_of(original, kind, 5, 7).image.rgb) << "another seed, another place";
    } else if (kinds[kind].starts_with("jpeg-")) {
      EXPECT_EQ(copy.quality, number());
      EXPECT_EQ(std::pair(image.width, image.height), std::pair(std::int64_t{96}, std::int64_t{64}));
    } else {
      EXPECT_EQ(std::pair(image.width, image.height), std::pair(original.width, original.height));
      EXPECT_GT(difference(image, original), 2) << kinds[kind];
      strong.insert(image.rgb);
    }
  }
  EXPECT_EQ(strong.size(), 5U);
}

TEST(Copies, ShardsNameAndLabelTheOriginal) {
  const auto world = comm::Communicator::world();
  const auto folder = fs::path(testing::TempDir()) / "seer-copies";
  fs::remove_all(folder);
  SynthOptions synth_options;
  synth_options.folder = (folder / "photos").string();
  synth_options.images = 5;
  synth_options.size = 64;
  synth(synth_options, world);
  CopyOptions options;
  options.folder = (folder / "out").string();
  options.images = 3;
  const auto result = write_copies(DataSet::open(synth_options.folder, world), options, world);
  EXPECT_EQ(result.originals.images, 3U);
  EXPECT_EQ(result.copies.images, 3U * 23);
  const auto photos = DataSet::open(synth_options.folder, world),
             originals = DataSet::open(options.folder + "/originals*.h5", world),
             copies = DataSet::open(options.folder + "/copies*.h5", world);
  std::vector<std::uint8_t> a, b;
  photos.read_image(2, a);
  originals.read_image(2, b);
  EXPECT_EQ(a, b) << "originals keep their bytes";
  EXPECT_EQ(image_names(originals, 1, 2), (std::vector<std::string>{"image 1", "image 2"}));
  EXPECT_EQ(image_names(copies, 23, 1).front(), "image 1+crop-10");
  EXPECT_EQ(copies.labels(22, 2), (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(copies.classes(), originals.classes());
  Image image;
  copies.read_image(copies.images() - 1, a);
  decode(a, copies.max_pixels(), image);
  EXPECT_EQ(image.width, 64);
  EXPECT_EQ(image_names(photos, 0, 2), (std::vector<std::string>{"", ""})) << "shards without names";
  fs::remove_all(folder);
}

}  // namespace
}  // namespace seer::data
