// SPDX-License-Identifier: Apache-2.0
// Compares training with SimCLR with float64 (validation/reference/simclr.py): on any number of ranks, in every mode of
// sharding, with recomputation, and on the stand-in device.
#include <cmath>
#include <utility>

#include "on_device.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

const comm::Communicator& world() {
  static const auto comm = comm::Communicator::world();
  return comm;
}

config::Config simclr_config(const std::string& head, const ShardMode& mode) {
  auto c = golden_config(world().size(), mode);
  c.method.kind = "simclr";
  c.simclr.temperature = 0.2;
  c.head.dims = head == "two" ? std::vector<std::int64_t>{64, 32, 16} : std::vector<std::int64_t>{64, 32, 24, 16};
  c.head.batchnorm = head != "two";
  c.crops = {{2, 32, {0.14, 1.0}}};
  return c;
}

/// Results of ten updates, to compare.
void expect_golden(const config::Config& config, const std::string& group) {
  const test::GoldenFile file("simclr.h5");
  Phases phases;
  Learner learner(config, world(), phases, plan_memory(config, world()), make_backend(config, world()));
  set_golden_start(learner);
  const auto losses = file.read(group + "/loss").values, rates = file.read(group + "/lr").values;
  for (std::int64_t t = 0; t < 10; ++t) {
    GoldenBatch golden(t, world());
    golden.batch.groups.resize(1);
    const auto at = static_cast<std::size_t>(t);
    const auto outcome = learner.update(golden.batch, t, rates[at], Learner::Figures::yes);
    ASSERT_FALSE(outcome.skipped);
    EXPECT_NEAR(outcome.loss, losses[at], 2e-4 * losses[at]) << "update " << t;
    EXPECT_EQ(outcome.figures.size(), 1U);
    if (t > 0) continue;
    const auto gradients = learner.gradients();
    for (const auto& p : learner.model().parameters().entries()) {
      // The gradient of a bias before BatchNorm is zero except for rounding.
      const auto wanted = file.read(group + "/first_grad/" + p.name).values;
      double difference = 0, length = 0;
      for (std::int64_t i = 0; i < p.elems; ++i) {
        const double w = wanted.at(static_cast<std::size_t>(i));
        difference += std::pow(static_cast<double>(gradients[static_cast<std::size_t>(p.offset + i)]) - w, 2);
        length += w * w;
      }
      EXPECT_LT(std::sqrt(difference), 2e-3 * std::sqrt(length) + 1e-6) << p.name;
    }
  }
}

TEST(SimclrTraining, IsTheReferencesInEveryModeOfSharding) {
  const auto groups = std::to_string(1);  // all ranks share one BatchNorm group
  for (const std::string head : {"two", "three_bn"}) {
    for (const auto& mode : kShardModes) {
      if (mode.group > world().size()) continue;
      SCOPED_TRACE(head + " " + mode.shard + " " + std::to_string(mode.group));
      auto config = simclr_config(head, mode);
      config.parallel.recompute = mode.group == 2 ? "block" : "none";
      expect_golden(config, "training_" + head + "/bn_groups_" + groups);
    }
  }
}

TEST(SimclrTraining, IsTheReferencesWithSmallerBatchNormGroups) {
  for (const std::string head : {"two", "three_bn"}) {
    auto config = simclr_config(head, {"none", 0});
    config.parallel.bn_group_size = 1;
    expect_golden(config, "training_" + head + "/bn_groups_" + std::to_string(world().size()));
  }
}

using SimclrOnDevice = test::OnDevice;

/// Losses and parameters after five updates.
std::pair<std::vector<float>, std::vector<float>> course(const config::Config& config) {
  Phases phases;
  Learner learner(config, world(), phases, plan_memory(config, world()), make_backend(config, world()));
  set_golden_start(learner);
  std::vector<float> losses;
  for (std::int64_t t = 0; t < 5; ++t) {
    GoldenBatch golden(t, world());
    golden.batch.groups.resize(1);
    losses.push_back(static_cast<float>(learner.update(golden.batch, t, 0.3).loss));
  }
  return {losses, learner.parameters()};
}

TEST_F(SimclrOnDevice, ComputesWhatTheHostDoes) {
  for (const ShardMode& mode : {ShardMode{"none", 0}, ShardMode{"parameters", 0}}) {
    auto config = simclr_config("three_bn", mode);
    const auto host = course(config);
    config.parallel.device = "device";
    const auto device = course(config);
    expect_near(device.first, host.first, 1e-4, "losses");
    expect_near(device.second, host.second, 1e-3, "parameters");
  }
}

}  // namespace
}  // namespace seer::train
