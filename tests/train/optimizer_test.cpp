// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace seer::train {
namespace {

// Two tensors of one number each, which differ in their nn::Treatment.
class OptimizerTest : public testing::Test {
 protected:
  static constexpr float kRate = 0.5F, kGradient = 2;

  /// The value of a parameter after one step, in update number `update`, from 1.
  float stepped(const nn::Treatment& treatment, const char* kind, std::int64_t update) {
    nn::ParameterTable table;
    table.add("plain", {1}, nn::Init::one);
    table.add("special", {1}, nn::Init::one, 1, treatment);
    config::Optimizer config;
    config.kind = kind;
    config.weight_decay = 0.1;
    config.trust = 0.01;
    device::Queue queue;
    Optimizer optimizer(config, table, queue);
    const auto part = Optimizer::part(table, 0, table.block_elems(), queue.space);
    std::vector<float> p(32, 1.0F), g(32, kGradient), m(32);
    optimizer.forget_squares(queue);
    optimizer.measure_gradients(queue, part, g.data());
    optimizer.measure_parameters(queue, part, p.data());
    optimizer.set_update(update);
    optimizer.set_rate(queue, kRate);
    optimizer.step(queue, part, g.data(), m.data(), p.data(), /*measures=*/false);
    norm = optimizer.gradient_norm();
    plain = p[0];
    return p[16];
  }
  double norm = 0;
  float plain = 0;
};

TEST_F(OptimizerTest, TensorsAreTreatedAsRegistered) {
  const float sgd = 1 - kRate * (kGradient + 0.1F), lars = 1 - kRate * 0.01F / (kGradient + 0.1F) * (kGradient + 0.1F);
  EXPECT_FLOAT_EQ(stepped({}, "sgd", 0), sgd);
  EXPECT_FLOAT_EQ(stepped({}, "lars", 0), lars);
  EXPECT_FLOAT_EQ(stepped({.decay = false}, "sgd", 0), 1 - kRate * kGradient);
  EXPECT_FLOAT_EQ(plain, sgd);
  EXPECT_FLOAT_EQ(stepped({.decay = false}, "lars", 0), 1 - kRate * 0.01F);
  EXPECT_FLOAT_EQ(stepped({.trust = false}, "lars", 0), sgd);
  EXPECT_FLOAT_EQ(plain, lars);
}

TEST_F(OptimizerTest, FrozenTensorsTakeNoPart) {
  const nn::Treatment frozen{.frozen_updates = 3};
  for (const std::int64_t update : {0, 2, 3}) {
    const bool moves = update >= 3;
    EXPECT_EQ(stepped(frozen, "sgd", update) != 1, moves) << update;
    EXPECT_NE(plain, 1.0F);
    EXPECT_DOUBLE_EQ(norm, std::sqrt(moves ? 8.0 : 4.0)) << update;
  }
}

// Frozen for two updates, then a ramp of three: 1/4, 2/4, 3/4 of the rate, and the whole rate from then on.
TEST_F(OptimizerTest, RateRisesLinearlyInTheRamp) {
  const nn::Treatment ramp{.frozen_updates = 2, .ramp_updates = 3};
  constexpr float kParts[] = {0, 0, 0.25F, 0.5F, 0.75F, 1, 1};
  for (std::int64_t update = 0; update < 7; ++update) {
    EXPECT_FLOAT_EQ(stepped(ramp, "sgd", update), 1 - kParts[update] * kRate * (kGradient + 0.1F)) << update;
    EXPECT_FLOAT_EQ(plain, 1 - kRate * (kGradient + 0.1F));
    EXPECT_FLOAT_EQ(stepped(ramp, "lars", update), 1 - kParts[update] * kRate * 0.01F) << update;
  }
}

}  // namespace
}  // namespace seer::train
