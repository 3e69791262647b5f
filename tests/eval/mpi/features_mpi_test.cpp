// SPDX-License-Identifier: Apache-2.0
// Features are the same on any number of ranks, and equal what the model computes.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "../support.hpp"
#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/eval/features.hpp"
#include "seer/eval/pooling.hpp"
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

class FeaturesMpi : public testing::TestWithParam<const char*> {
 protected:
  comm::Communicator world = comm::Communicator::world();
  comm::Communicator alone = world.split(world.rank());
};

TEST_P(FeaturesMpi, EqualOneRankAtAnyBatch) {
  const test::ShardFolder folder(world, kImages, kClasses, 5);
  const auto data = data::DataSet::open(folder.path(), world);
  const auto data_alone = data::DataSet::open(folder.path(), alone);
  FeatureExtractor extractor(tiny(), small_head(), 3, parse_features(GetParam()));
  const auto mine = extractor.table(world, data, reading(4));
  const auto whole = extractor.table(alone, data_alone, reading(1));
  ASSERT_EQ(whole.rows(), kImages);
  EXPECT_EQ(mine.first, slice_begin(kImages, world.rank(), world.size()));
  const auto d = static_cast<std::size_t>(mine.info.dimension);
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
  FeatureExtractor extractor(tiny(), small_head(), 3, parse_features(GetParam()));
  const std::string path = folder.path() + "/out.features";
  FeatureFileWriter writer(world, path, extractor.info(data, reading()));
  extractor.run(world, data, reading(), [&](const FeatureTable& rows) { writer.write(rows); });
  writer.close();
  const auto stored = read_features(alone, path);
  const auto expected = extractor.table(alone, data::DataSet::open(folder.path(), alone), reading());
  EXPECT_EQ(stored.rows(), kImages);
  EXPECT_EQ(stored.labels, expected.labels);
  EXPECT_EQ(stored.index, expected.index);
  EXPECT_EQ(stored.info.layer, GetParam());
  EXPECT_EQ(stored.info.columns, expected.info.columns);
  EXPECT_EQ(stored.info.dimension, expected.info.dimension);
  EXPECT_EQ(stored.info.classes, data.classes());
  EXPECT_LT(test::relative_error(stored.values, expected.values), 1e-6);
  const auto shared = read_features(world, path);
  EXPECT_EQ(world.all_reduce(static_cast<std::int64_t>(shared.rows()), comm::Op::sum),
            static_cast<std::int64_t>(kImages));
}

TEST_P(FeaturesMpi, RecalibratedStatisticsAreThoseOfTheImages) {
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), world);
  FeatureExtractor extractor(tiny(), small_head(), 3, parse_features(GetParam())),
      single(tiny(), small_head(), 3, parse_features(GetParam()));
  const auto options = reading(kImages);  // one batch of all images: order does not matter
  extractor.recalibrate(world, data, 1000, options);
  single.recalibrate(alone, data::DataSet::open(folder.path(), alone), 1000, options);
  auto head = small_head();
  if (std::string(GetParam()) != "head") head.dims.clear();
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

std::string name_of(const testing::TestParamInfo<const char*>& feature) {
  std::string out = feature.param;
  std::ranges::replace_if(
      out, [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return out;
}

INSTANTIATE_TEST_SUITE_P(Layers, FeaturesMpi,
                         testing::Values("trunk", "head", "res3:map", "res3:2x1,trunk+res2:gem2.5,res4:rmac2,stem:map"),
                         name_of);

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
  for (const auto* text : {"trunk", "head", "res3:gem4,res2:map"}) {
    const auto layer = parse_features(text);
    auto loaded = FeatureExtractor::load(world, path, layer);
    FeatureExtractor fresh(tiny(), small_head(), 9, layer);
    EXPECT_EQ(loaded.table(world, data, reading()).values, fresh.table(world, data, reading()).values);
  }
  weights.parameters.at("trunk_output.block1.block1-0.f.a.0.weight").shape[0] += 1;
  try {
    FeatureExtractor(weights, "w.h5");
    ADD_FAILURE() << "a wrong shape was taken";
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("block1-0.f.a.0.weight"), std::string::npos) << error.message();
  }
  weights.head.dims.clear();
  EXPECT_THROW(FeatureExtractor(weights, "w.h5", parse_features("head")), Error);
}

/// Features of several outputs are the poolings of what the trunk computes, one after the other, the map last.
TEST(Taps, ArePooledOutputsOfTheTrunk) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), alone);
  const nn::Model model(tiny());
  std::vector<float> parameters(static_cast<std::size_t>(model.parameters().block_elems()));
  std::vector<float> buffers(static_cast<std::size_t>(model.buffers().block_elems()));
  model.initialize(3, parameters.data(), buffers.data());
  FeatureExtractor extractor(tiny(), small_head(), 3,
                             parse_features("res2:map,res3:3x2,stem:gem3,trunk,res4:rmac2+res4"));
  const auto table = extractor.table(alone, data, reading(kImages));
  const auto columns = columns_of(table.info);
  ASSERT_EQ(columns.size(), 5U);
  EXPECT_EQ(columns.back().feature, "res2:map");
  EXPECT_EQ(table.info.layer, "res3:3x2,stem:gem3,trunk,res4:rmac2+res4,res2:map");
  EXPECT_EQ(columns.back().begin + columns.back().width, extractor.dimension(reading().crop));

  data::EvalReader reader(data, 0, kImages, reading(kImages));
  const auto* batch = reader.next();
  const auto dnn = dnn::make_host_backend();
  device::Pool memory;
  nn::Context ctx;
  ctx.dnn = dnn.get();
  ctx.pool = &memory;
  ctx.parameters = parameters.data();
  ctx.buffers = buffers.data();
  ctx.mode = nn::Mode::eval;
  nn::PassOptions options;
  for (const auto& tap : model.trunk().taps()) options.outputs.push_back(tap.segment);
  const auto pass = model.trunk().make_pass(options);
  std::vector<float> trunk(kImages * static_cast<std::size_t>(model.trunk().width()));
  model.trunk().forward_all(ctx, batch->pixels, *pass,
                            {.data = trunk.data(), .shape = {kImages, 1, 1, model.trunk().width()}});
  EXPECT_EQ(only(table, columns[2]).values, trunk);
  const auto check = [&](const FeatureColumns& of, std::size_t tap, const FeaturePart& part, std::int64_t begin) {
    const auto map = pass->output(options.outputs[tap]);
    const auto width = pooled_width(part, map.shape);
    std::vector<float> wanted(static_cast<std::size_t>(map.shape.n * width)), found;
    pool(part, map, wanted.data(), width);
    const auto rows = only(table, of).values;
    for (std::int64_t i = 0; i < map.shape.n; ++i)
      found.insert(found.end(), rows.begin() + i * of.width + begin, rows.begin() + i * of.width + begin + width);
    EXPECT_EQ(found, wanted) << of.feature;
    return width;
  };
  check(columns[0], 2, {.tap = "res3", .height = 3, .width = 2}, 0);
  check(columns[1], 0, {.tap = "stem", .pool = Pool::gem}, 0);
  const auto rmac = check(columns[3], 3, {.tap = "res4", .pool = Pool::rmac, .levels = 2}, 0);
  check(columns[3], 3, {.tap = "res4"}, rmac);
  check(columns[4], 1, {.tap = "res2", .pool = Pool::map}, 0);
  const auto map = pass->output(options.outputs[1]).shape;
  EXPECT_EQ(columns[4].map, (std::array{map.h, map.w, map.c}));

  // The same from blocks of a running network, which may be longer.
  parameters.resize(parameters.size() + 100, NAN);
  buffers.resize(buffers.size() + 100, NAN);
  const auto live_model = tiny();
  const auto live_head = small_head();
  const config::Augment normalisation;
  FeatureExtractor live({&live_model, &live_head, parameters, buffers, &normalisation}, "the run");
  EXPECT_EQ(live.table(alone, data, reading(kImages)).values, trunk);
}

TEST(Taps, UnknownOutputsAreRefusedWithTheKnownOnes) {
  try {
    FeatureExtractor(tiny(), small_head(), 3, parse_features("trunk,res9:gem3"));
    ADD_FAILURE() << "res9 was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(error.message().find("stem, res2, res3, res4"), std::string::npos) << error.message();
  }
}

TEST(FeaturesFile, HoldsMapsAndColumnsAsArrays) {
  const auto world = comm::Communicator::world();
  const test::ShardFolder folder(world, kImages, kClasses);
  const auto data = data::DataSet::open(folder.path(), world);
  FeatureExtractor extractor(tiny(), small_head(), 3, parse_features("res3:map,trunk,res4"));
  const std::string path = folder.path() + "/out.features";
  const auto info = extractor.info(data, reading());
  FeatureFileWriter writer(world, path, info);
  extractor.run(world, data, reading(), [&](const FeatureTable& rows) { writer.write(rows); });
  writer.close();
  auto file = h5::File::open(path);
  EXPECT_EQ(file.get_int("/", "version"), 2) << "older readers refuse";
  const auto& map = info.columns.back();
  const auto of_map = static_cast<std::uint64_t>(map.width);
  EXPECT_EQ(file.describe("/map").dims,
            (h5::Dims{kImages, static_cast<std::uint64_t>(map.map[0]), static_cast<std::uint64_t>(map.map[1]),
                      static_cast<std::uint64_t>(map.map[2])}));
  EXPECT_EQ(file.read_all<std::int64_t>("/columns", h5::Type::i64),
            (std::vector<std::int64_t>{0, info.columns[1].begin, info.columns[2].begin}));
  const auto table = extractor.table(world, data, reading());
  std::vector<float> stored(table.rows() * of_map);
  file.read("/map", h5::Type::f32, table.first * of_map, stored.size(), stored.data());
  EXPECT_EQ(stored, only(table, map).values);
  file.close();
  world.barrier();
  comm::agree(world, "damage", [&] {
    if (!world.is_root()) return;
    const std::vector<std::int64_t> wrong = {0, 9999, info.columns[2].begin};
    h5::File::open(path, nullptr, true).write("/columns", h5::Type::i64, 0, wrong.size(), wrong.data());
  });
  EXPECT_THROW(read_features(world, path), Error) << "columns that do not fit";

  FeatureInfo other = info;
  EXPECT_NO_THROW(require_alike(info, "a", other, "b"));
  other.columns[1].begin += 1;
  EXPECT_THROW(require_alike(info, "a", other, "b"), Error);
}

TEST(FeaturesFile, RefusesFilesOfAnotherKind) {
  const auto world = comm::Communicator::world();
  const test::ShardFolder folder(world, kImages, kClasses);
  EXPECT_THROW(read_features(world, folder.path() + "/images-00000.h5"), Error);
  EXPECT_THROW(read_features(world, folder.path() + "/none.h5"), Error);
}

}  // namespace
}  // namespace seer::eval
