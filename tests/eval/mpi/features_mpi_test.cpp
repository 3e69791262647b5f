// SPDX-License-Identifier: Apache-2.0
// Features are the same on any number of ranks, and equal what the model computes.
#include <algorithm>

#include "../support.hpp"
#include "seer/base/error.hpp"
#include "seer/eval/features.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/model.hpp"

namespace seer::eval {
namespace {

constexpr std::uint64_t kImages = 11;
constexpr std::int32_t kClasses = 3;

config::Model tiny() {
  config::Model model;
  model.preset = "tiny";
  return model;
}
config::Head small_head() {
  const auto features = nn::architecture(tiny()).back().width;
  return {.dims = {features, 24, 16}, .batchnorm = true, .prototypes = 5};
}
data::EvalOptions reading(std::int64_t batch = 4) {
  data::EvalOptions options;
  options.resize = 48;
  options.crop = 40;
  options.batch = batch;
  return options;
}

class FeaturesMpi : public testing::TestWithParam<Layer> {
 protected:
  comm::Communicator world = comm::Communicator::world();
  comm::Communicator alone = world.split(world.rank());
};

TEST_P(FeaturesMpi, EqualOneRankAtAnyBatch) {
  const test::ShardFolder folder(world, kImages, kClasses, 5);
  const auto data = data::DataSet::open(folder.path(), world);
  const auto data_alone = data::DataSet::open(folder.path(), alone);
  FeatureExtractor extractor(tiny(), small_head(), 3, GetParam());
  const auto mine = extractor.table(world, data, reading(4));
  const auto whole = extractor.table(alone, data_alone, reading(1));
  ASSERT_EQ(whole.rows(), kImages);
  EXPECT_EQ(mine.first, slice_begin(kImages, world.rank(), world.size()));
  const auto d = static_cast<std::size_t>(extractor.dimension());
  for (std::size_t i = 0; i < mine.rows(); ++i) {
    const std::uint64_t row = mine.first + i;
    EXPECT_EQ(mine.index[i], row);
    EXPECT_EQ(mine.labels[i], static_cast<std::int32_t>(row) % kClasses);
    EXPECT_EQ(mine.bad[i] != 0, row == 5);
    const std::vector<float> a(mine.values.begin() + static_cast<std::ptrdiff_t>(i * d),
                               mine.values.begin() + static_cast<std::ptrdiff_t>((i + 1) * d));
    const std::vector<float> b(whole.values.begin() + static_cast<std::ptrdiff_t>(row * d),
                               whole.values.begin() + static_cast<std::ptrdiff_t>((row + 1) * d));
    EXPECT_LT(test::relative_error(a, b), 1e-6) << "row " << row;
    if (row == 5) continue;  // all zeros, and fresh running statistics (0 and 1) keep them so through the trunk
    EXPECT_GT(*std::max_element(a.begin(), a.end()), 0.0F) << "row " << row;
  }
}

TEST_P(FeaturesMpi, FileHoldsThemInOrder) {
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), world);
  FeatureExtractor extractor(tiny(), small_head(), 3, GetParam());
  const std::string path = folder.path() + "/out.features";
  FeatureFileWriter writer(world, path, extractor.info(data, reading()));
  extractor.run(world, data, reading(), [&](const FeatureTable& rows) { writer.write(rows); });
  writer.close();
  const auto stored = read_features(alone, path);
  const auto expected = extractor.table(alone, data::DataSet::open(folder.path(), alone), reading());
  EXPECT_EQ(stored.rows(), kImages);
  EXPECT_EQ(stored.labels, expected.labels);
  EXPECT_EQ(stored.index, expected.index);
  EXPECT_EQ(stored.info.layer, GetParam() == Layer::head ? "head" : "trunk");
  EXPECT_EQ(stored.info.classes, data.classes());
  EXPECT_LT(test::relative_error(stored.values, expected.values), 1e-6);
  const auto shared = read_features(world, path);
  EXPECT_EQ(world.all_reduce(static_cast<std::int64_t>(shared.rows()), comm::Op::sum),
            static_cast<std::int64_t>(kImages));
}

TEST_P(FeaturesMpi, RecalibratedStatisticsAreThoseOfTheImages) {
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), world);
  FeatureExtractor extractor(tiny(), small_head(), 3, GetParam()), single(tiny(), small_head(), 3, GetParam());
  const auto options = reading(kImages);  // one batch of all images: order does not matter
  extractor.recalibrate(world, data, 1000, options);
  single.recalibrate(alone, data::DataSet::open(folder.path(), alone), 1000, options);
  auto head = small_head();
  if (GetParam() == Layer::trunk) head.dims.clear();
  const nn::Model model(tiny(), nn::projection_heads(head));
  const auto elems = static_cast<std::size_t>(model.buffers().block_elems());
  const std::vector<float> shared(extractor.buffers(), extractor.buffers() + elems);
  const std::vector<float> whole(single.buffers(), single.buffers() + elems);
  EXPECT_LT(test::relative_error(shared, whole), 1e-5);

  // The stem's, by the definition: a convolution of all images, written out.
  std::vector<float> parameters(static_cast<std::size_t>(model.parameters().block_elems())), start(elems);
  model.initialize(3, parameters.data(), start.data());
  const float* weight = parameters.data() + model.parameters().find("stem.0.weight").offset;
  const auto data_alone = data::DataSet::open(folder.path(), alone);
  data::EvalReader reader(data_alone, 0, kImages, options);
  const auto* batch = reader.next();
  ASSERT_EQ(batch->images, static_cast<std::int64_t>(kImages));
  const std::int64_t side = options.crop, out_side = (side - 1) / 2 + 1;
  for (std::int64_t c = 0; c < nn::kStemWidth; c += 7) {
    double sum = 0, squares = 0;
    for (std::int64_t n = 0; n < batch->images; ++n) {
      for (std::int64_t y = 0; y < out_side; ++y) {
        for (std::int64_t x = 0; x < out_side; ++x) {
          double value = 0;
          for (std::int64_t ky = 0; ky < 3; ++ky) {
            for (std::int64_t kx = 0; kx < 3; ++kx) {
              const std::int64_t sy = 2 * y + ky - 1, sx = 2 * x + kx - 1;
              if (sy < 0 || sx < 0 || sy >= side || sx >= side) continue;
              for (std::int64_t in = 0; in < 3; ++in) {
                value += static_cast<double>(weight[((c * 3 + in) * 3 + ky) * 3 + kx]) *
                         static_cast<double>(batch->pixels.f32()[((n * side + sy) * side + sx) * 3 + in]);
              }
            }
          }
          sum += value;
          squares += value * value;
        }
      }
    }
    const auto rows = static_cast<double>(batch->images * out_side * out_side);
    const double mean = sum / rows, unbiased = (squares / rows - mean * mean) * rows / (rows - 1);
    const auto at = [&](const char* name) {
      return static_cast<double>(shared[static_cast<std::size_t>(model.buffers().find(name).offset + c)]);
    };
    EXPECT_NEAR(at("stem.1.running_mean"), mean, 1e-4 * std::sqrt(unbiased));
    EXPECT_NEAR(at("stem.1.running_var"), unbiased, 1e-4 * unbiased);
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, FeaturesMpi, testing::Values(Layer::trunk, Layer::head),
                         [](const auto& layer) { return layer.param == Layer::head ? "head" : "trunk"; });

TEST(FeaturesFile, WeightsFileGivesTheSameFeaturesOnEveryRank) {
  const auto world = comm::Communicator::world();
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), world);
  const nn::Model model(tiny(), nn::projection_heads(small_head()));
  std::vector<float> parameters(static_cast<std::size_t>(model.parameters().block_elems()));
  std::vector<float> buffers(static_cast<std::size_t>(model.buffers().block_elems()));
  model.initialize(9, parameters.data(), buffers.data());
  const auto tensors = [](const nn::ParameterTable& table, const std::vector<float>& block) {
    std::map<std::string, weights::HostTensor> out;
    for (const auto& p : table.entries())
      out[p.name] = {p.shape, {block.data() + p.offset, block.data() + p.offset + p.elems}};
    return out;
  };
  weights::Weights weights;
  weights.model = tiny();
  weights.head = small_head();
  weights.parameters = tensors(model.parameters(), parameters);
  weights.buffers = tensors(model.buffers(), buffers);
  const std::string path = folder.path() + "/weights";
  comm::agree(world, "write", [&] {
    if (world.is_root()) weights::write_weights(path, weights);
  });
  for (const auto layer : {Layer::trunk, Layer::head}) {
    auto loaded = FeatureExtractor::load(world, path, layer);
    FeatureExtractor fresh(tiny(), small_head(), 9, layer);
    EXPECT_EQ(loaded.table(world, data, reading()).values, fresh.table(world, data, reading()).values);
  }
  weights.parameters.at("trunk_output.block1.block1-0.f.a.0.weight").shape[0] += 1;
  try {
    FeatureExtractor(weights, Layer::trunk, "w.h5");
    ADD_FAILURE() << "a wrong shape was taken";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("block1-0.f.a.0.weight"), std::string::npos) << error.message();
  }
  weights.head.dims.clear();
  EXPECT_THROW(FeatureExtractor(weights, Layer::head, "w.h5"), Error);
}

TEST(FeaturesFile, RefusesFilesOfAnotherKind) {
  const auto world = comm::Communicator::world();
  const test::ShardFolder folder(world, kImages, kClasses);
  EXPECT_THROW(read_features(world, folder.path() + "/images-00000.h5"), Error);
  EXPECT_THROW(read_features(world, folder.path() + "/none.h5"), Error);
}

}  // namespace
}  // namespace seer::eval
