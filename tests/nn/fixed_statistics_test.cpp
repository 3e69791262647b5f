// SPDX-License-Identifier: Apache-2.0
// BatchNorm with running statistics that stay as they are, in forward and backward pass (Context::fixed_statistics).
#include <algorithm>
#include <array>
#include <cmath>

#include "seer/nn/layers.hpp"
#include "support.hpp"

namespace seer::nn {
namespace {

struct Net : test::TestModel {
  Net() : TestModel("tiny", {64, 9, 5}, 0) {
    for (std::size_t i = 0; i < buffers.size(); ++i) buffers[i] += static_cast<float>(test::hash_value(7, i, 0.2));
    images = test::hash_fill(static_cast<std::size_t>(3 * 33 * 31 * 3), 5, 1.5);
    features.resize(static_cast<std::size_t>(3 * model.trunk().width()));
  }
  device::Tensor x() { return {.data = images.data(), .shape = {3, 33, 31, 3}}; }
  device::Tensor y() { return {.data = features.data(), .shape = {3, 1, 1, model.trunk().width()}}; }
  Context fixed(Mode mode = Mode::train) {
    auto ctx = context(mode);
    ctx.fixed_statistics = true;
    return ctx;
  }
  std::vector<float> images, features;
};

TEST(FixedStatistics, ForwardIsThatOfEvaluationAndChangesNoStatistics) {
  Net net;
  const auto before = net.buffers;
  net.model.trunk().forward_all(net.context(Mode::eval), net.x(), *net.model.trunk().make_pass(), net.y());
  const auto wanted = net.features;
  net.model.trunk().forward_all(net.fixed(), net.x(), *net.model.trunk().make_pass(), net.y());
  EXPECT_EQ(net.features, wanted);
  EXPECT_EQ(net.buffers, before);
  net.model.trunk().forward_all(net.context(), net.x(), *net.model.trunk().make_pass(), net.y());
  EXPECT_NE(net.features, wanted);
}

/// Nobody must ask for sums over ranks.
class NoSums final : public StatisticsReduction {
 public:
  void sum(device::Queue&, double*, std::size_t) override { ADD_FAILURE(); }
  int size() const override { return 2; }
};

// dL/dx = gamma inv_std dL/dy, dL/dgamma = sum dL/dy (x - mean) inv_std, dL/dbeta = sum dL/dy; nothing goes over ranks.
TEST(FixedStatistics, LayerIsAScaleAndAShift) {
  constexpr std::int64_t kRows = 2 * 3 * 5, kChannels = 7;
  ParameterTable parameters, buffers;
  const BatchNormLayer layer(parameters, buffers, "bn", kChannels);
  std::vector<float> p(static_cast<std::size_t>(parameters.block_elems())), g(p.size()),
      b(static_cast<std::size_t>(buffers.block_elems()));
  for (std::size_t k = 0; k < kChannels; ++k) {
    p[k] = 1 + static_cast<float>(test::hash_value(1, k, 0.5));
    p[16 + k] = static_cast<float>(test::hash_value(2, k, 0.5));
    b[k] = static_cast<float>(test::hash_value(3, k, 0.5));
    b[16 + k] = 1 + static_cast<float>(test::hash_value(4, k, 0.5));
  }
  auto x = test::hash_fill(kRows * kChannels, 5, 2), dy = test::hash_fill(x.size(), 6, 1), dx = x;
  device::Pool pool;
  NoSums sums;
  const Context ctx{.pool = &pool,
                    .queue = {},
                    .parameters = p.data(),
                    .gradients = g.data(),
                    .buffers = b.data(),
                    .fixed_statistics = true,
                    .group = &sums};
  const auto tensor = [](std::vector<float>& of) {
    return device::Tensor{.data = of.data(), .shape = {2, 3, 5, kChannels}};
  };
  BatchNormLayer::Saved saved;
  BatchNormLayer::compute_statistics(ctx, std::array{BatchNormLayer::Part{&layer, &saved, tensor(x)}});
  layer.backward(ctx, saved, tensor(x), {.d_y = tensor(dy)}, tensor(dx));
  for (std::size_t k = 0; k < kChannels; ++k) {
    const double inv_std = 1 / std::sqrt(static_cast<double>(b[16 + k]) + 1e-5);
    double d_gamma = 0, d_beta = 0;
    for (std::size_t r = 0; r < kRows; ++r) {
      const auto i = r * kChannels + k;
      EXPECT_NEAR(dx[i], static_cast<double>(p[k]) * inv_std * static_cast<double>(dy[i]), 1e-6);
      d_gamma += static_cast<double>(dy[i]) * (static_cast<double>(x[i]) - static_cast<double>(b[k])) * inv_std;
      d_beta += static_cast<double>(dy[i]);
    }
    EXPECT_NEAR(g[k], d_gamma, 1e-5);
    EXPECT_NEAR(g[16 + k], d_beta, 1e-5);
  }
}

// The derivative along a direction, for all parameters and for the pixels; recomputed segments give the same bits.
TEST(FixedStatistics, GradientIsThatOfConstantStatistics) {
  Net net;
  const auto& trunk = net.model.trunk();
  auto up = test::hash_fill(net.features.size(), 9, 1);
  const auto loss = [&] {
    trunk.forward_all(net.fixed(), net.x(), *trunk.make_pass(), net.y());
    double sum = 0;
    for (std::size_t i = 0; i < up.size(); ++i)
      sum += static_cast<double>(up[i]) * static_cast<double>(net.features[i]);
    return sum;
  };
  std::vector<float> d_images(net.images.size());
  const auto backward = [&](Keep keep) {
    std::ranges::fill(net.gradients, 0.0F);
    const auto pass = trunk.make_pass({.keep = std::vector<Keep>(trunk.segments(), keep)});
    trunk.forward_all(net.fixed(), net.x(), *pass, net.y());
    trunk.backward_all(net.fixed(), {.data = up.data(), .shape = net.y().shape}, *pass,
                       {.data = d_images.data(), .shape = net.x().shape});
  };
  backward(Keep::input);
  const auto recomputed = net.gradients;
  backward(Keep::all);
  EXPECT_EQ(net.gradients, recomputed);
  const auto check = [&](std::vector<float>& values, const std::vector<float>& gradient, std::uint64_t seed) {
    const auto direction = test::hash_fill(values.size(), seed, 1);
    const auto start = values;
    double wanted = 0, best = 1e30;
    for (std::size_t i = 0; i < values.size(); ++i)
      wanted += static_cast<double>(gradient[i]) * static_cast<double>(direction[i]);
    // Kinks of ReLU spoil the larger steps, rounding the smaller ones.
    for (const float h : {4e-4F, 1e-4F, 3e-5F, 1e-5F}) {
      const auto at = [&](float step) {
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = start[i] + step * direction[i];
        return loss();
      };
      const double found = (at(h) - at(-h)) / (2 * static_cast<double>(h));
      best = std::min(best, std::abs(found - wanted));
    }
    values = start;
    EXPECT_LT(best, 0.02 * std::abs(wanted) + 1e-3) << wanted;
  };
  for (const std::uint64_t seed : {1, 2, 3}) {
    check(net.images, d_images, seed);
    check(net.parameters, net.gradients, seed);
  }
}

}  // namespace
}  // namespace seer::nn
