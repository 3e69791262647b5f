// SPDX-License-Identifier: Apache-2.0
// Compares ResNet and ResNeXt with torchvision in float64 (validation/reference/resnet.py) and with finite differences.
#include <gtest/gtest.h>

#include <cmath>

#include "seer/nn/block.hpp"
#include "support.hpp"

namespace seer::nn {
namespace {

using test::GoldenFile;
using test::relative_error;

config::Model resnet(const std::string& preset, bool small = false) {
  config::Model m;
  m.trunk = "resnet";
  m.preset = preset;
  m.stem = small ? "small" : "standard";
  return m;
}

/// A trunk with memory for its blocks.
struct Network {
  explicit Network(const config::Model& config)
      : model(config),
        backend(dnn::make_host_backend()),
        parameters(static_cast<std::size_t>(model.parameters().block_elems())),
        gradients(parameters.size()),
        buffers(static_cast<std::size_t>(model.buffers().block_elems())) {
    model.initialize(1, parameters.data(), buffers.data());
    test::hash_init(model.parameters(), 1, parameters.data());
  }
  Context context(Mode mode = Mode::train) {
    return {.dnn = backend.get(),
            .pool = &pool,
            .queue = {},
            .parameters = parameters.data(),
            .gradients = gradients.data(),
            .buffers = buffers.data(),
            .mode = mode};
  }
  Model model;
  std::unique_ptr<dnn::Backend> backend;
  device::Pool pool;
  std::vector<float> parameters, gradients, buffers;
};

double length_of(const float* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += std::pow(static_cast<double>(values[i]), 2);
  return std::sqrt(sum);
}

/// A network and the allowed errors of float. In all but the first, as with PyTorch in float, the argument of some ReLU
/// is so near to zero that rounding switches it.
struct Case {
  const char *group, *preset;
  bool small;
  double output, gradient, length;
};

TEST(ResNet, IsTorchvisions) {
  const GoldenFile file("resnet.h5");
  for (const Case& c :
       {Case{"resnet18_33", "18", false, 2e-5, 1e-4, 1e-4}, Case{"resnet18_small_32", "18", true, 2e-5, 1e-2, 5e-3},
        Case{"resnet50_64", "50", false, 1e-3, 0.15, 0.05},
        Case{"resnext50_48", "x50_32x4d", false, 1e-3, 0.15, 0.05}}) {
    const std::string name = c.group;
    SCOPED_TRACE(name);
    Network net(resnet(c.preset, c.small));
    const auto& trunk = net.model.trunk();
    const auto input = file.read(name + "/input");
    const auto n = static_cast<std::int64_t>(input.dims[0]), side = static_cast<std::int64_t>(input.dims[2]);
    auto images = test::to_nhwc(input.values, n, 3, side, side);
    std::vector<float> features(static_cast<std::size_t>(n * trunk.width())), d_images(images.size());
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, 3}};
    const device::Tensor y{.data = features.data(), .shape = {n, 1, 1, trunk.width()}};
    {
      const auto pass = trunk.make_pass();
      trunk.forward_all(net.context(), x, *pass, y);
      EXPECT_LT(relative_error(features, file.read(name + "/output_train").values), c.output);
      auto up = file.read(name + "/upstream").f32();
      trunk.backward_all(net.context(), {.data = up.data(), .shape = y.shape}, *pass,
                         {.data = d_images.data(), .shape = x.shape});
    }
    EXPECT_EQ(net.pool.in_use_bytes(), 0U) << "backward frees all it was given";
    EXPECT_LT(relative_error(d_images, test::to_nhwc(file.read(name + "/input_grad").values, n, 3, side, side)),
              c.gradient);
    const auto wanted_names = file.names(name + "/grad_sum_norm");
    EXPECT_EQ(net.model.parameters().entries().size(), wanted_names.size());
    for (const auto& p : net.model.parameters().entries()) {
      const float* g = net.gradients.data() + p.offset;
      ASSERT_TRUE(file.has(name + "/grad_sum_norm/" + p.name)) << p.name;
      const double wanted = file.read(name + "/grad_sum_norm/" + p.name).values.at(1);
      EXPECT_NEAR(length_of(g, p.elems), wanted, c.length * wanted) << p.name;
      if (!file.has(name + "/grad/" + p.name)) continue;
      const auto golden = file.read(name + "/grad/" + p.name);
      EXPECT_LT(relative_error(std::vector<float>(g, g + p.elems), golden.values), c.gradient) << p.name;
    }
    for (const auto& b : net.model.buffers().entries()) {
      const float* values = net.buffers.data() + b.offset;
      if (file.has(name + "/buffer/" + b.name)) {
        EXPECT_LT(
            relative_error(std::vector<float>(values, values + b.elems), file.read(name + "/buffer/" + b.name).values),
            c.output)
            << b.name;
      } else {
        const double wanted = file.read(name + "/buffer_sum_norm/" + b.name).values.at(1);
        EXPECT_NEAR(length_of(values, b.elems), wanted, c.output * wanted) << b.name;
      }
    }
    const auto pass = trunk.make_pass();
    trunk.forward_all(net.context(Mode::eval), x, *pass, y);
    EXPECT_LT(relative_error(features, file.read(name + "/output_eval").values), 5e-5);
    EXPECT_EQ(net.pool.in_use_bytes(), 0U);
  }
}

TEST(ResNet, EveryPresetHasItsPublishedSize) {
  // torchvision's counts without the classifier of 1000 classes.
  const std::vector<std::tuple<std::string, std::int64_t, std::int64_t>> wanted = {
      {"18", 512, 11176512},          {"34", 512, 21284672},
      {"50", 2048, 23508032},         {"101", 2048, 42500160},
      {"152", 2048, 58143808},        {"x50_32x4d", 2048, 22979904},
      {"x101_32x8d", 2048, 86742336}, {"x101_32x16d", 2048, 191977792},
      {"x101_64x4d", 2048, 81406272}};
  for (const auto& [preset, width, parameters] : wanted) {
    const Model model(resnet(preset));
    EXPECT_EQ(model.trunk().width(), width) << preset;
    EXPECT_EQ(model.parameters().parameter_count(), parameters) << preset;
    EXPECT_EQ(model.trunk().taps().back().name, "res5");
    EXPECT_EQ(model.trunk().taps().size(), 5U);
  }
}

TEST(ResNet, RecomputationGivesTheSameBits) {
  const std::int64_t n = 2, side = 35;
  for (const char* preset : {"18", "x50_32x4d"}) {
    std::vector<float> gradients, buffers;
    std::size_t held = 0;
    for (const auto keep : {Keep::all, Keep::convolutions, Keep::input}) {
      Network net(resnet(preset));
      auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * 3), 11, 1.7);
      const auto& trunk = net.model.trunk();
      auto up = test::hash_fill(static_cast<std::size_t>(n * trunk.width()), 12, 1.0);
      std::vector<float> features(up.size());
      const auto pass = trunk.make_pass({.keep = std::vector<Keep>(trunk.segments(), keep)});
      trunk.forward_all(net.context(), {.data = images.data(), .shape = {n, side, side, 3}}, *pass,
                        {.data = features.data(), .shape = {n, 1, 1, trunk.width()}});
      const auto now = net.pool.in_use_bytes();
      trunk.backward_all(net.context(), {.data = up.data(), .shape = {n, 1, 1, trunk.width()}}, *pass);
      EXPECT_EQ(net.pool.in_use_bytes(), 0U);
      if (keep == Keep::all) {
        gradients = net.gradients;
        buffers = net.buffers;
      } else {
        EXPECT_LT(now, held);
        EXPECT_EQ(net.gradients, gradients);
        EXPECT_EQ(net.buffers, buffers);
      }
      held = now;
    }
  }
}

// One block of each form, in odd sizes. The difference is along the gradient of each tensor and of the input.
TEST(ResNet, BlocksMatchFiniteDifferences) {
  for (const auto& shape : {Block::Shape{.width_in = 6, .width = 6}, Block::Shape{6, 10, 2},
                            Block::Shape{6, 12, 1, 8, 4}, Block::Shape{12, 12, 1, 6, 3}, Block::Shape{5, 7, 2, 9, 1}}) {
    SCOPED_TRACE(std::to_string(shape.width_in) + " " + std::to_string(shape.inner_width));
    ParameterTable table, buffer_table;
    const Block block(table, buffer_table, "b", shape);
    std::vector<float> parameters(static_cast<std::size_t>(table.block_elems())), gradients(parameters.size());
    std::vector<float> buffers(static_cast<std::size_t>(buffer_table.block_elems()));
    test::hash_init(table, 5, parameters.data());
    const auto backend = dnn::make_host_backend();
    device::Pool pool;
    const Context ctx{.dnn = backend.get(),
                      .pool = &pool,
                      .queue = {},
                      .parameters = parameters.data(),
                      .gradients = gradients.data(),
                      .buffers = buffers.data()};
    const std::int64_t n = 3, side = 7;
    auto images = test::hash_fill(static_cast<std::size_t>(n * side * side * shape.width_in), 4, 1.0);
    const device::Tensor x{.data = images.data(), .shape = {n, side, side, shape.width_in}};
    std::vector<float> weights;
    const auto value = [&] {
      Block::Saved saved;
      block.forward(ctx, x, saved);
      if (weights.empty()) weights = test::hash_fill(static_cast<std::size_t>(saved.out->elems()), 8, 1.0);
      double sum = 0;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        sum += static_cast<double>(saved.out->f32()[i]) * static_cast<double>(weights[i]);
      }
      return sum;
    };
    value();
    Block::Saved saved;
    block.forward(ctx, x, saved);
    auto d_out = pool.tensor(saved.out->shape);
    std::copy(weights.begin(), weights.end(), d_out->f32());
    const auto d_x = block.backward(ctx, std::move(d_out), saved);
    const auto check = [&](float* at, const float* g, std::int64_t count, const std::string& what) {
      const double norm = length_of(g, count);
      ASSERT_GT(norm, 1e-2) << what;
      const std::vector<float> start(at, at + count), direction(g, g + count);
      const auto moved = [&](double h) {
        for (std::size_t i = 0; i < start.size(); ++i) {
          at[i] = static_cast<float>(static_cast<double>(start[i]) + h * static_cast<double>(direction[i]));
        }
        return value();
      };
      const double step = 1e-3 / norm, slope = (moved(step) - moved(-step)) / (2 * step);
      std::copy(start.begin(), start.end(), at);
      EXPECT_NEAR(slope / norm, norm, 0.03 * norm) << what;
    };
    for (const auto& p : table.entries())
      check(parameters.data() + p.offset, gradients.data() + p.offset, p.elems, p.name);
    check(images.data(), d_x->f32(), d_x->elems(), "input");
  }
}

TEST(ResNet, UnknownPresetsAreNamed) {
  try {
    const Model model(resnet("60"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(e.remedy().find("x50_32x4d"), std::string::npos) << e.remedy();
  }
}

}  // namespace
}  // namespace seer::nn
