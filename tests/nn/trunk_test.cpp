// SPDX-License-Identifier: Apache-2.0
// The trunk against the float64 reference (trunk.h5) and against finite differences.
#include <gtest/gtest.h>

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
  const auto width = t.model.trunk().features();
  std::vector<float> features(static_cast<std::size_t>(n * width)), d_images(images.size());
  const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, width}};
  auto ctx = t.context();
  {
    RegNet::Pass pass;
    t.model.trunk().forward(ctx, x, pass, y);
    EXPECT_LT(relative_error(features, file.read(name + "/output_train").values), 1e-4);
    auto up = upstream.f32();
    const device::Tensor d_x{.data = d_images.data(), .shape = x.shape};
    t.model.trunk().backward(ctx, {.data = up.data(), .shape = y.shape}, pass, &d_x);
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
  RegNet::Pass pass;
  t.model.trunk().forward(ctx, x, pass, y);
  EXPECT_LT(relative_error(features, file.read(name + "/output_eval").values), 1e-4);
  EXPECT_EQ(t.pool.in_use_bytes(), 0U);
}

INSTANTIATE_TEST_SUITE_P(All, TrunkGolden, testing::Values("tiny_32", "tiny_25", "200mf_64"));

// What is dropped comes back to the bit: same gradients, same running statistics, and less memory held between.
TEST(Trunk, RecomputationGivesTheSameBits) {
  const std::int64_t n = 3, side = 37;
  std::vector<float> gradients, buffers;
  std::size_t held = 0;
  for (const auto keep : {Keep::all, Keep::convolutions, Keep::input}) {
    TestModel t("tiny");
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
    const auto& trunk = t.model.trunk();
    auto up = test::hash_fill(static_cast<std::size_t>(n * trunk.features()), 12, 1.0);
    std::vector<float> features(up.size());
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    const auto ctx = t.context();
    RegNet::Pass pass;
    pass.keep.assign(trunk.segments(), keep);
    trunk.forward(ctx, x, pass, {.data = features.data(), .shape = {n, 1, 1, trunk.features()}});
    const auto now = t.pool.in_use_bytes();
    trunk.backward(ctx, {.data = up.data(), .shape = {n, 1, 1, trunk.features()}}, pass);
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

// The whole trunk on odd sizes and a batch of one against central differences in some coordinates of every tensor.
TEST(Trunk, GradientMatchesFiniteDifferences) {
  for (const std::int64_t n : {1, 3}) {
    TestModel t("tiny");
    test::hash_init(t.model.parameters(), 9, t.parameters.data());
    const std::int64_t side = 37, width = t.model.trunk().features();
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
    const auto up = test::hash_fill(static_cast<std::size_t>(n * width), 12, 1.0);
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    std::vector<float> features(up.size());
    const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, width}};
    auto ctx = t.context();
    const auto value = [&] {
      RegNet::Pass pass;
      t.model.trunk().forward(ctx, x, pass, y);
      double sum = 0;
      for (std::size_t i = 0; i < up.size(); ++i) sum += static_cast<double>(features[i]) * static_cast<double>(up[i]);
      return sum;
    };
    RegNet::Pass pass;
    t.model.trunk().forward(ctx, x, pass, y);
    auto d_features = up;
    t.model.trunk().backward(ctx, {.data = d_features.data(), .shape = y.shape}, pass);

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
