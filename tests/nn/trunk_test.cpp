// SPDX-License-Identifier: Apache-2.0
// Compares the trunk with the float64 reference (trunk.h5) and with finite differences.
#include <gtest/gtest.h>

#include <numeric>

#include "seer/kernels/activation.hpp"
#include "support.hpp"

namespace seer::nn {
namespace {

using test::Golden;
using test::GoldenFile;
using test::relative_error;
using test::TestModel;

class TrunkGolden : public testing::TestWithParam<std::string> {};

TEST_P(TrunkGolden, ForwardBackwardAndRunningStatistics) {
  const std::string name = GetParam();
  const GoldenFile file("trunk.h5");
  TestModel t(name.substr(0, name.find('_')));
  test::hash_init(t.model.parameters(), 1, t.parameters.data());
  const auto input = file.read(name + "/input"), upstream = file.read(name + "/upstream");
  const auto n = static_cast<std::int64_t>(input.dims[0]), side = static_cast<std::int64_t>(input.dims[2]);
  auto images = test::to_nhwc(input.values, n, 3, side, side);
  const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
  const auto width = t.model.trunk().width();
  std::vector<float> features(static_cast<std::size_t>(n * width)), d_images(images.size());
  const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, width}};
  auto ctx = t.context();
  {
    const auto pass = t.model.trunk().make_pass();
    t.model.trunk().forward_all(ctx, x, *pass, y);
    EXPECT_LT(relative_error(features, file.read(name + "/output_train").values), 1e-4);
    auto up = upstream.f32();
    const device::Tensor d_x{.data = d_images.data(), .shape = x.shape};
    t.model.trunk().backward_all(ctx, {.data = up.data(), .shape = y.shape}, *pass, d_x);
  }
  EXPECT_EQ(t.pool.in_use_bytes(), 0U) << "backward frees all it was given";
  EXPECT_LT(relative_error(d_images, test::to_nhwc(file.read(name + "/input_grad").values, n, 3, side, side)), 1e-3);
  for (const auto& p : t.model.parameters().entries()) {
    const float* g = t.gradients.data() + p.offset;
    if (file.has(name + "/grad/" + p.name)) {
      const auto golden = file.read(name + "/grad/" + p.name);
      EXPECT_LT(relative_error(std::vector<float>(g, g + p.elems), golden.values), 1e-3) << p.name;
    } else {
      const auto golden = file.read(name + "/grad_sum_norm/" + p.name);
      double sum = 0, square = 0;
      for (std::int64_t i = 0; i < p.elems; ++i) {
        sum += static_cast<double>(g[i]);
        square += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      }
      EXPECT_NEAR(std::sqrt(square), golden.values[1], 1e-3 * golden.values[1]) << p.name;
      EXPECT_NEAR(sum, golden.values[0], 2e-3 * golden.values[1] * std::sqrt(static_cast<double>(p.elems))) << p.name;
    }
  }
  for (const auto& b : t.model.buffers().entries()) {
    const float* values = t.buffers.data() + b.offset;
    EXPECT_LT(
        relative_error(std::vector<float>(values, values + b.elems), file.read(name + "/buffer/" + b.name).values),
        1e-4)
        << b.name;
  }
  ctx.mode = Mode::eval;
  const auto pass = t.model.trunk().make_pass();
  t.model.trunk().forward_all(ctx, x, *pass, y);
  EXPECT_LT(relative_error(features, file.read(name + "/output_eval").values), 1e-4);
  EXPECT_EQ(t.pool.in_use_bytes(), 0U);
}

INSTANTIATE_TEST_SUITE_P(All, TrunkGolden, testing::Values("tiny_32", "tiny_25", "200mf_64"));

// Recomputation gives the same bits in gradients and running statistics, and holds less memory between the passes.
TEST(Trunk, RecomputationGivesTheSameBits) {
  const std::int64_t n = 3, side = 37;
  std::vector<float> gradients, buffers;
  std::size_t held = 0;
  for (const auto keep : {Keep::all, Keep::convolutions, Keep::input}) {
    TestModel t("tiny");
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
    const auto& trunk = t.model.trunk();
    auto up = test::hash_fill(static_cast<std::size_t>(n * trunk.width()), 12, 1.0);
    std::vector<float> features(up.size());
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    const auto ctx = t.context();
    const auto pass = trunk.make_pass({.keep = std::vector<Keep>(trunk.segments(), keep)});
    trunk.forward_all(ctx, x, *pass, {.data = features.data(), .shape = {n, 1, 1, trunk.width()}});
    const auto now = t.pool.in_use_bytes();
    trunk.backward_all(ctx, {.data = up.data(), .shape = {n, 1, 1, trunk.width()}}, *pass);
    EXPECT_EQ(t.pool.in_use_bytes(), 0U);
    if (keep == Keep::all) {
      gradients = t.gradients;
      buffers = t.buffers;
    } else {
      EXPECT_LT(now, held);
      EXPECT_EQ(t.gradients, gradients);
      EXPECT_EQ(t.buffers, buffers);
    }
    held = now;
  }
}

// Outputs inside the trunk: a second consumer reads them and adds a gradient.
TEST(Trunk, TapsForwardAndBackward) {
  const std::int64_t n = 2, side = 37;
  TestModel t("tiny");
  const auto& trunk = t.model.trunk();
  std::vector<std::string> names;
  for (const auto& tap : trunk.taps()) names.push_back(tap.name);
  EXPECT_EQ(names, (std::vector<std::string>{"stem", "res2", "res3", "res4"})) << "tiny has three stages";
  EXPECT_EQ(trunk.taps().back().segment + 1, trunk.segments());

  test::hash_init(t.model.parameters(), 9, t.parameters.data());
  auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
  const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
  std::vector<float> features(static_cast<std::size_t>(n * trunk.width()));
  const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, trunk.width()}};
  auto ctx = t.context();
  ctx.mode = Mode::eval;
  const auto values_of = [](const device::Tensor& z) { return std::vector<float>(z.f32(), z.f32() + z.elems()); };
  std::vector<std::vector<float>> as_it_runs, at_the_end;
  const auto running = trunk.make_pass();
  for (std::size_t s = 0; s < trunk.segments(); ++s) {
    trunk.forward(ctx, s, x, *running, y);
    if (s + 1 < trunk.segments()) as_it_runs.push_back(values_of(running->output(s)));
  }
  std::vector<std::size_t> all(trunk.segments());
  std::iota(all.begin(), all.end(), 0);
  {
    const auto kept = trunk.make_pass({.outputs = all});
    trunk.forward_all(ctx, x, *kept, y);
    for (std::size_t s = 0; s + 1 < trunk.segments(); ++s) EXPECT_EQ(values_of(kept->output(s)), as_it_runs[s]) << s;
    const auto last = kept->output(trunk.segments() - 1);
    double mean = 0;
    for (std::int64_t i = 0; i < last.shape.h * last.shape.w; ++i) {
      mean += static_cast<double>(last.f32()[i * last.shape.c]) / static_cast<double>(last.shape.h * last.shape.w);
    }
    EXPECT_NEAR(mean, static_cast<double>(features[0]), 1e-5) << "the last output is the input of the pooling";
  }
  EXPECT_EQ(t.pool.in_use_bytes(), 0U);

  // The loss is a weighted sum of one tap's output. So only the segments up to the tap have gradients.
  ctx.mode = Mode::train;
  const auto tap = trunk.taps()[2].segment;
  std::vector<float> weights;
  const auto value = [&] {
    const auto pass = trunk.make_pass();
    trunk.forward_all(ctx, x, *pass, y);
    const auto out = pass->output(tap);
    if (weights.empty()) weights = test::hash_fill(static_cast<std::size_t>(out.elems()), 13, 1.0);
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      sum += static_cast<double>(out.f32()[i]) * static_cast<double>(weights[i]);
    }
    return sum;
  };
  value();
  {
    const auto pass = trunk.make_pass();
    trunk.forward_all(ctx, x, *pass, y);
    std::vector<float> none(features.size());
    for (std::size_t s = trunk.segments(); s-- > 0;) {
      if (s == tap) kernels::add(ctx.queue, {weights.data(), pass->output(s).shape}, pass->gradient());
      trunk.backward(ctx, s, {.data = none.data(), .shape = y.shape}, *pass, {});
    }
  }
  const auto end = trunk.segment_begins()[tap + 1];
  int checked = 0;
  for (const auto& p : t.model.parameters().entries()) {
    const float* g = t.gradients.data() + p.offset;
    float* at = t.parameters.data() + p.offset;
    double norm = 0;
    for (std::int64_t i = 0; i < p.elems; ++i) norm += std::pow(static_cast<double>(g[i]), 2);
    norm = std::sqrt(norm);
    if (p.offset >= end) {
      EXPECT_EQ(norm, 0) << p.name;
      continue;
    }
    if (norm < 1e-2 || p.shape.size() != 4) continue;
    const std::vector<float> start(at, at + p.elems);
    const auto moved = [&](double h) {
      for (std::int64_t i = 0; i < p.elems; ++i) {
        at[i] =
            static_cast<float>(static_cast<double>(start[static_cast<std::size_t>(i)]) + h * static_cast<double>(g[i]));
      }
      return value();
    };
    const double step = 2e-3 / norm, slope = (moved(step) - moved(-step)) / (2 * step);
    std::copy(start.begin(), start.end(), at);
    EXPECT_NEAR(slope / norm, norm, 0.05 * norm + 1e-2) << p.name;
    ++checked;
  }
  EXPECT_GT(checked, 5);
}

// Compares the whole trunk, in odd sizes and with a batch of one, with central differences.
TEST(Trunk, GradientMatchesFiniteDifferences) {
  for (const std::int64_t n : {1, 3}) {
    TestModel t("tiny");
    test::hash_init(t.model.parameters(), 9, t.parameters.data());
    const std::int64_t side = 37, width = t.model.trunk().width();
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
    const auto up = test::hash_fill(static_cast<std::size_t>(n * width), 12, 1.0);
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    std::vector<float> features(up.size());
    const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, width}};
    auto ctx = t.context();
    const auto value = [&] {
      const auto pass = t.model.trunk().make_pass();
      t.model.trunk().forward_all(ctx, x, *pass, y);
      double sum = 0;
      for (std::size_t i = 0; i < up.size(); ++i) sum += static_cast<double>(features[i]) * static_cast<double>(up[i]);
      return sum;
    };
    const auto pass = t.model.trunk().make_pass();
    t.model.trunk().forward_all(ctx, x, *pass, y);
    auto d_features = up;
    t.model.trunk().backward_all(ctx, {.data = d_features.data(), .shape = y.shape}, *pass);

    for (const auto& p : t.model.parameters().entries()) {
      // Along the gradient's own direction: the derivative is its norm, so one pair of evaluations tests a whole
      // tensor.
      float* values = t.parameters.data() + p.offset;
      const std::vector<float> start(values, values + p.elems);
      const float* g = t.gradients.data() + p.offset;
      double norm = 0, size = 0;
      for (std::int64_t i = 0; i < p.elems; ++i) {
        norm += std::pow(static_cast<double>(g[i]), 2);
        size += std::pow(static_cast<double>(start[static_cast<std::size_t>(i)]), 2);
      }
      norm = std::sqrt(norm);
      if (norm < 1e-4) continue;
      const double step = 2e-4 * std::max(1.0, std::sqrt(size)) / norm;  // above rounding, below curvature
      const auto at = [&](double h) {
        for (std::int64_t i = 0; i < p.elems; ++i) {
          values[i] = static_cast<float>(static_cast<double>(start[static_cast<std::size_t>(i)]) +
                                         h * static_cast<double>(g[i]));
        }
        return value();
      };
      const double slope = (at(step) - at(-step)) / (2 * step);
      std::copy(start.begin(), start.end(), values);
      EXPECT_NEAR(slope / norm, norm, 0.05 * norm + 2e-3) << p.name << " n=" << n;
    }
  }
}

}  // namespace
}  // namespace seer::nn
