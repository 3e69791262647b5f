// SPDX-License-Identifier: Apache-2.0
// Compares block, trunk and head in bf16 with float: outputs by relative error, gradients by direction and length.
// Rounding changes mostly the direction of a gradient: each ReLU that it switches stops a gradient or lets it pass.
#include <gtest/gtest.h>

#include "seer/base/half.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/block.hpp"
#include "support.hpp"

namespace seer::nn {
namespace {

using test::relative_error;
using test::TestModel;

bool supported() {
  return dnn::make_host_backend()->supports(DType::bf16);
}

struct Likeness {
  double cosine = 0, length = 0;  ///< length: |a| / |b|
};
Likeness likeness(const float* a, const float* b, std::int64_t count) {
  double aa = 0, ab = 0, bb = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    aa += x * x;
    ab += x * y;
    bb += y * y;
  }
  return {ab / std::sqrt(aa * bb), std::sqrt(aa / bb)};
}

std::vector<double> wide(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

/// One forward and backward pass of a block on its own.
struct BlockRun {
  std::vector<float> out, d_x, gradients;

  BlockRun(const Block::Shape& shape, std::int64_t n, std::int64_t side, DType compute) {
    ParameterTable parameters, buffers;
    const Block block(parameters, buffers, "block", shape);
    std::vector<float> values(static_cast<std::size_t>(parameters.block_elems()));
    std::vector<float> statistics(static_cast<std::size_t>(buffers.block_elems()));
    test::hash_init(parameters, 1, values.data());
    gradients.resize(values.size());
    const auto backend = dnn::make_host_backend();
    device::Pool pool;
    const Context ctx{.dnn = backend.get(),
                      .pool = &pool,
                      .queue = {},
                      .parameters = values.data(),
                      .gradients = gradients.data(),
                      .buffers = statistics.data(),
                      .compute = compute};
    auto queue = ctx.queue;
    const auto floats = [&](const device::Tensor& from) {
      std::vector<float> to(static_cast<std::size_t>(from.elems()));
      kernels::cast(queue, from, {.data = to.data(), .shape = from.shape});
      return to;
    };
    const auto activation = [&](device::Shape of, std::uint64_t seed) {
      auto from = test::hash_fill(static_cast<std::size_t>(of.elems()), seed, 1.0);
      auto to = ctx.activation(of);
      kernels::cast(queue, {.data = from.data(), .shape = of}, *to);
      return to;
    };
    Block::Saved saved;
    const auto x = activation({n, side, side, shape.width_in}, 11);
    block.forward(ctx, *x, saved);
    EXPECT_EQ(saved.out->dtype, compute);
    out = floats(*saved.out);
    const auto d_x_loan = block.backward(ctx, activation(saved.out->shape, 12), saved);
    d_x = floats(*d_x_loan);
  }
};

TEST(HalfBlock, IsCloseToFloat) {
  if (!supported()) GTEST_SKIP() << "no bf16 on this processor";
  for (const Block::Shape& shape :
       {Block::Shape{.width_in = 32, .width = 32, .inner_width = 32, .groups = 4, .squeezed = 8},
        Block::Shape{.width_in = 24, .width = 48, .stride = 2, .inner_width = 48, .groups = 3, .squeezed = 6},
        Block::Shape{.width_in = 40, .width = 104, .stride = 2, .inner_width = 104, .groups = 1, .squeezed = 10}}) {
    for (const std::int64_t side : {14, 17}) {
      SCOPED_TRACE(testing::Message() << shape.width_in << " to " << shape.width << ", side " << side);
      const BlockRun full(shape, 5, side, DType::f32), half(shape, 5, side, DType::bf16);
      EXPECT_LT(relative_error(half.out, wide(full.out)), 0.01);
      EXPECT_NE(half.out, full.out);
      for (const auto& [of, against] : {std::pair(&half.d_x, &full.d_x), std::pair(&half.gradients, &full.gradients)}) {
        const auto like = likeness(of->data(), against->data(), std::ssize(*of));
        EXPECT_GT(like.cosine, 0.99);
        EXPECT_NEAR(like.length, 1, 0.02);
      }
    }
  }
}

/// One forward and backward pass of the trunk.
struct TrunkRun {
  std::vector<float> features, gradients, buffers, d_images;
  std::size_t held = 0;  ///< bytes kept from forward to backward

  enum class Inputs { plain, rounded };  ///< rounded: parameters and images rounded to bf16, also if float is computed

  TrunkRun(const std::string& preset, DType compute, std::int64_t n, std::int64_t side, Keep keep = Keep::all,
           Inputs inputs = Inputs::plain) {
    TestModel t(preset);
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
    if (inputs == Inputs::rounded) {
      for (auto* values : {&images, &t.parameters}) {
        for (float& v : *values) v = BFloat16(v);
      }
    }
    const auto& trunk = t.model.trunk();
    auto up = test::hash_fill(static_cast<std::size_t>(n * trunk.width()), 12, 1.0);
    features.resize(up.size());
    d_images.resize(images.size());
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    const device::Tensor d_x{.data = d_images.data(), .shape = x.shape};
    auto ctx = t.context();
    ctx.compute = compute;
    const auto pass = trunk.make_pass({.keep = std::vector<Keep>(trunk.segments(), keep)});
    trunk.forward_all(ctx, x, *pass, {.data = features.data(), .shape = {n, 1, 1, trunk.width()}});
    held = t.pool.in_use_bytes();
    trunk.backward_all(ctx, {.data = up.data(), .shape = {n, 1, 1, trunk.width()}}, *pass, d_x);
    EXPECT_EQ(t.pool.in_use_bytes(), 0U) << "backward frees all it was given";
    gradients = t.gradients;
    buffers = t.buffers;
  }
};

class HalfTrunk : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, HalfTrunk, testing::Values("tiny", "200mf"));

// A whole random trunk enlarges every error. Even in float, if only parameters and images are rounded to bf16, the
// gradient has a very different direction. So this difference is the limit.
TEST_P(HalfTrunk, IsAsCloseToFloatAsItsRoundedInputs) {
  if (!supported()) GTEST_SKIP() << "no bf16 on this processor";
  const std::int64_t n = 8, side = 67;
  const TrunkRun full(GetParam(), DType::f32, n, side), half(GetParam(), DType::bf16, n, side);
  const TrunkRun rounded(GetParam(), DType::f32, n, side, Keep::all, TrunkRun::Inputs::rounded);
  EXPECT_LT(relative_error(half.features, wide(full.features)),
            3 * relative_error(rounded.features, wide(full.features)));
  EXPECT_LT(relative_error(half.buffers, wide(full.buffers)), 0.02);
  const auto of_half = likeness(half.gradients.data(), full.gradients.data(), std::ssize(full.gradients));
  const auto of_rounded = likeness(rounded.gradients.data(), full.gradients.data(), std::ssize(full.gradients));
  EXPECT_LT(1 - of_half.cosine, 3 * (1 - of_rounded.cosine));
  EXPECT_NEAR(of_half.length, 1, 0.15);
  const auto images = likeness(half.d_images.data(), full.d_images.data(), std::ssize(full.d_images));
  const auto images_rounded = likeness(rounded.d_images.data(), full.d_images.data(), std::ssize(full.d_images));
  EXPECT_LT(1 - images.cosine, 3 * (1 - images_rounded.cosine));
  EXPECT_LT(static_cast<double>(half.held), 0.6 * static_cast<double>(full.held)) << "half the memory, and statistics";
}

// Recomputation gives the same bits in bf16, too.
TEST(HalfTrunkReplay, RecomputationGivesTheSameBits) {
  if (!supported()) GTEST_SKIP() << "no bf16 on this processor";
  const TrunkRun kept("tiny", DType::bf16, 3, 37);
  for (const auto keep : {Keep::convolutions, Keep::input}) {
    const TrunkRun again("tiny", DType::bf16, 3, 37, keep);
    EXPECT_EQ(again.gradients, kept.gradients);
    EXPECT_EQ(again.buffers, kept.buffers);
    EXPECT_EQ(again.d_images, kept.d_images);
    EXPECT_LT(again.held, kept.held);
  }
}

TEST(HalfHead, IsCloseToFloat) {
  if (!supported()) GTEST_SKIP() << "no bf16 on this processor";
  for (const bool batchnorm : {false, true}) {
    const std::int64_t rows = 21;
    config::Head config;
    config.dims = {33, 47, 31, 17};
    config.batchnorm = batchnorm;
    config.prototypes = 29;
    ParameterTable table, buffer_table;
    const auto heads = projection_heads(config)(33, table, buffer_table);
    const Chain &projector = *heads.at(0), &prototypes = *heads.at(1);
    std::vector<float> parameters(static_cast<std::size_t>(table.block_elems()));
    std::vector<float> buffers(static_cast<std::size_t>(buffer_table.block_elems()) + 1);
    initialize(table, 3, parameters.data());
    const auto backend = dnn::make_host_backend();
    device::Pool pool;
    std::vector<float> scores[2], gradients[2], d_features[2];
    for (const int half : {0, 1}) {
      auto features = test::hash_fill(static_cast<std::size_t>(rows * 33), 4, 1.0);
      auto d_scores = test::hash_fill(static_cast<std::size_t>(rows * 29), 2, 1.0);
      gradients[half].resize(parameters.size());
      scores[half].resize(d_scores.size());
      d_features[half].resize(features.size());
      const Context ctx{.dnn = backend.get(),
                        .pool = &pool,
                        .queue = {},
                        .parameters = parameters.data(),
                        .gradients = gradients[half].data(),
                        .buffers = buffers.data(),
                        .compute = half == 1 ? DType::bf16 : DType::f32};
      std::vector<float> embeddings(static_cast<std::size_t>(rows * 17)), d_embeddings(embeddings.size());
      const device::Tensor e{.data = embeddings.data(), .shape = {rows, 1, 1, 17}};
      const device::Tensor d_e{.data = d_embeddings.data(), .shape = e.shape};
      const auto pass = projector.make_pass(), last_pass = prototypes.make_pass();
      projector.forward_all(ctx, {.data = features.data(), .shape = {rows, 1, 1, 33}}, *pass, e);
      prototypes.forward_all(ctx, e, *last_pass, {.data = scores[half].data(), .shape = {rows, 1, 1, 29}});
      prototypes.backward_all(ctx, {.data = d_scores.data(), .shape = {rows, 1, 1, 29}}, *last_pass, d_e);
      projector.backward_all(ctx, d_e, *pass, {.data = d_features[half].data(), .shape = {rows, 1, 1, 33}});
      EXPECT_EQ(pool.in_use_bytes(), 0U);
    }
    EXPECT_NE(scores[1], scores[0]);
    EXPECT_LT(relative_error(scores[1], wide(scores[0])), 0.02);
    const auto all = likeness(gradients[1].data(), gradients[0].data(), std::ssize(gradients[0]));
    EXPECT_GT(all.cosine, 0.99);
    EXPECT_NEAR(all.length, 1, 0.03);
    const auto below = likeness(d_features[1].data(), d_features[0].data(), std::ssize(d_features[0]));
    EXPECT_GT(below.cosine, 0.99);
    EXPECT_NEAR(below.length, 1, 0.03);
  }
}

}  // namespace
}  // namespace seer::nn
