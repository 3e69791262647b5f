// SPDX-License-Identifier: Apache-2.0
// Sources beside the loader: the reader of evaluations, and files of ready crops.
#include <fmt/format.h>

#include <algorithm>

#include "loader_support.hpp"
#include "seer/base/error.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/image.hpp"

namespace seer::data {
namespace {

TEST_F(LoaderMpi, EvaluationReaderKeepsOrderAndFlagsBadImages) {
  write({12, 33});
  const auto data = DataSet::open(config_.data.shards, world_);
  EvalOptions options;
  options.resize = 20;
  options.crop = 16;
  options.batch = 7;
  options.threads = 2;
  EvalReader reader(data, 5, 48, options);
  std::uint64_t at = 5;
  while (const auto* batch = reader.next()) {
    EXPECT_EQ(batch->pixels.shape, (device::Shape{batch->images, 16, 16, 3}));
    for (std::int64_t i = 0; i < batch->images; ++i, ++at) {
      const auto k = static_cast<std::size_t>(i);
      EXPECT_EQ(batch->indices[k], at);
      EXPECT_EQ(batch->labels[k], static_cast<std::int32_t>(at % 3));
      EXPECT_EQ(batch->bad[k], at == 12 || at == 33 ? 1 : 0);
      const auto image = batch->pixels.slice(i, 1);
      const bool zero = std::all_of(image.f32(), image.f32() + image.elems(), [](float x) { return x == 0; });
      EXPECT_EQ(zero, at == 12 || at == 33);
    }
  }
  EXPECT_EQ(at, 48U);
  EXPECT_EQ(reader.bad_images(), 2);
  EXPECT_EQ(reader.next(), nullptr);
  options.raw_side = 8;
  EvalReader raw(data, 0, 1, options);
  const auto* batch = raw.next();
  ASSERT_NE(batch, nullptr);
  Image image;
  std::vector<std::uint8_t> encoded;
  data.read_image(0, encoded);
  decode(encoded, 1 << 20, image);
  std::vector<float> wanted(8 * 8 * 3);
  AugmentScratch scratch;
  raw_pixels(image, 8, scratch, wanted.data());
  EXPECT_EQ(std::vector<float>(batch->pixels.f32(), batch->pixels.f32() + batch->pixels.elems()), wanted);
}

class CropsFile : public LoaderMpi {
 protected:
  CropsFile() {
    config_.data.source = "crops";
    config_.data.shards = folder_ / "crops.h5";
    config_.data.global_batch = 4;
    config_.crops = {{1, 6, {0.1, 1.0}}, {2, 4, {0.1, 0.2}}};
  }
  /// value = crop + row / 100 + position inside / 10000
  static float value(int crop, std::int64_t row, std::int64_t inside) {
    return static_cast<float>(crop) + static_cast<float>(row) * 0.01F + static_cast<float>(inside) * 0.0001F;
  }
  void write_crops(int crops = 3) {
    if (world_.is_root()) {
      auto file = h5::File::create(config_.data.shards);
      file.create_group("/crops");
      for (int crop = 0; crop < crops; ++crop) {
        const std::uint64_t size = crop == 0 ? 6 : 4, inside = 3 * size * size;
        std::vector<float> values;
        for (std::int64_t row = 0; row < 12; ++row)
          for (std::uint64_t i = 0; i < inside; ++i) values.push_back(value(crop, row, static_cast<std::int64_t>(i)));
        const auto name = fmt::format("/crops/{}", crop);
        file.create_dataset(name, h5::Type::f32, {12, 3, size, size});
        file.write(name, h5::Type::f32, 0, values.size(), values.data());
      }
      file.close();
    }
    world_.barrier();
  }
};

TEST_F(CropsFile, GivesEachRankItsRowsChannelsLast) {
  write_crops();
  const auto source = source_at(1);
  EXPECT_EQ(source->images(), 12U);
  for (std::int64_t update = 1; update < 3; ++update) {
    const auto& batch = source->next();
    EXPECT_EQ(batch.update, update);
    ASSERT_EQ(batch.groups.size(), 2U);
    for (const auto& group : batch.groups)
      for (int c = 0; c < group.count; ++c)
        for (std::int64_t i = 0; i < batch.images; ++i)
          for (std::int64_t p = 0; p < group.size * group.size; ++p)
            for (std::int64_t channel = 0; channel < 3; ++channel) {
              const auto row = update * 4 + world_.rank() * batch.images + i;
              ASSERT_EQ(group.images.slice(c * batch.images + i, 1).f32()[p * 3 + channel],
                        value(group.first_crop + c, row, channel * group.size * group.size + p));
            }
  }
  EXPECT_THROW(source->next(), Error);
}

TEST_F(CropsFile, RefusesWhatTheConfigurationDoesNotMatch) {
  write_crops();
  const auto code = [this] {
    try {
      source_at(0);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(code(), ExitCode::ok);
  config_.crops[0].size = 5;
  EXPECT_EQ(code(), ExitCode::input);
  config_.crops[0].size = 6;
  config_.crops[1].count = 1;
  EXPECT_EQ(code(), ExitCode::input);
  config_.crops[1].count = 3;
  EXPECT_EQ(code(), ExitCode::file);
  config_.crops[1].count = 2;
  config_.data.global_batch = 8;
  EXPECT_EQ(code(), ExitCode::input);
  config_.data.global_batch = 4;
  config_.data.shards = folder_ / "none.h5";
  EXPECT_EQ(code(), ExitCode::file);
}

}  // namespace
}  // namespace seer::data
