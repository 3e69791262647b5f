// SPDX-License-Identifier: Apache-2.0
// Whole images, and images that are changed before they are resized.
#include "seer/data/eval_reader.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "seer/data/copies.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

class Reader : public testing::Test {
 protected:
  /// A set whose first nine images are crops of one picture of 64 x 64 pixels, in several sizes.
  void SetUp() override {
    fs::remove_all(folder_);
    SynthOptions synth_options;
    synth_options.folder = (folder_ / "photos").string();
    synth_options.images = 1;
    synth_options.size = 64;
    synth(synth_options, world_);
    CopyOptions options;
    options.folder = (folder_ / "copies").string();
    write_copies(DataSet::open(synth_options.folder, world_), options, world_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  DataSet crops() const { return DataSet::open((folder_ / "copies/copies*.h5").string(), world_); }
  static Image decoded(const DataSet& data, std::uint64_t index) {
    std::vector<std::uint8_t> bytes;
    data.read_image(index, bytes);
    Image out;
    decode(bytes, data.max_pixels(), out);
    return out;
  }
  static EvalOptions plain() {
    EvalOptions options;
    options.normalisation.mean = {0, 0, 0};
    options.normalisation.std = {1, 1, 1};
    return options;
  }

 private:
  comm::Communicator world_ = comm::Communicator::world();
  fs::path folder_ = fs::path(testing::TempDir()) / "seer-eval-reader";
};

TEST_F(Reader, WholeImagesShrinkToTheLongerSideAndNeverGrow) {
  const auto data = crops();
  auto options = plain();
  options.batch = 4;
  options.whole = 50;
  EvalReader reader(data, 0, 9, options);
  for (std::uint64_t i = 0; i < 9; ++i) {
    const auto* batch = reader.next();
    ASSERT_NE(batch, nullptr);
    EXPECT_EQ(batch->images, 1) << "sizes differ, so batches have one image";
    const auto image = decoded(data, i);
    EXPECT_EQ(batch->pixels.shape.w, std::min<std::int64_t>(50, image.width));
    EXPECT_EQ(batch->pixels.shape.h, batch->pixels.shape.w) << "the crops are squares";
    if (image.width > 50) continue;
    for (std::size_t k = 0; k < image.rgb.size(); ++k)
      ASSERT_FLOAT_EQ(batch->pixels.f32()[k], static_cast<float>(image.rgb[k]) / 255.0F) << "not resized";
  }
  EXPECT_EQ(reader.next(), nullptr);
}

TEST_F(Reader, AnImageIsChangedBeforeItIsResized) {
  const auto data = crops();
  auto options = plain();
  options.whole = 1000;
  std::vector<std::uint64_t> asked;
  options.change = [&](std::uint64_t index, Image& image) {
    asked.push_back(index);
    image = {2, 1, {255, 0, 0, 0, 255, 0}};
  };
  EvalReader reader(data, 3, 5, options);
  const auto* batch = reader.next();
  EXPECT_EQ(batch->pixels.shape, (device::Shape{1, 1, 2, 3}));
  EXPECT_EQ(std::vector<float>(batch->pixels.f32(), batch->pixels.f32() + 6), (std::vector<float>{1, 0, 0, 0, 1, 0}));
  EXPECT_NE(reader.next(), nullptr);
  EXPECT_EQ(asked, (std::vector<std::uint64_t>{3, 4}));
}

}  // namespace
}  // namespace seer::data
