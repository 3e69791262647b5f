// SPDX-License-Identifier: Apache-2.0
// Trains a ResNet: the same results in every mode of sharding and recomputation and on a device, in the planned memory.
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

config::Config resnet_config(const ShardMode& mode, const char* recompute) {
  auto c = golden_config(world().size(), mode);
  c.model.trunk = "resnet";
  c.model.preset = "18";
  c.model.stem = "small";
  c.head.dims = {512, 32, 16};
  c.crops = {{2, 32, {0.14, 1.0}}};
  c.parallel.recompute = recompute;
  c.parallel.bucket_bytes = 1 << 20;
  return c;
}

/// Losses of three updates and the memory that they used.
std::pair<std::vector<float>, Footprint> course(const config::Config& config) {
  Phases phases;
  Learner learner(config, world(), phases, plan_memory(config, world()), make_backend(config, world()));
  std::vector<float> losses;
  for (std::int64_t t = 0; t < 3; ++t) {
    GoldenBatch golden(t, world());
    golden.batch.groups.resize(1);
    losses.push_back(static_cast<float>(learner.update(golden.batch, t, 0.1).loss));
  }
  return {losses, learner.footprint()};
}

TEST(ResNetTraining, IsAlikeInEveryMode) {
  const auto wanted = course(resnet_config({"none", 0}, "none"));
  for (const auto& [shard, recompute] :
       {std::pair("none", "block"), std::pair("gradients", "cheap"), std::pair("parameters", "block")}) {
    SCOPED_TRACE(std::string(shard) + " " + recompute);
    const auto config = resnet_config({shard, 0}, recompute);
    const auto found = course(config);
    for (std::size_t t = 0; t < wanted.first.size(); ++t) EXPECT_NEAR(found.first[t], wanted.first[t], 2e-5) << t;
    EXPECT_LT(found.second.activations, wanted.second.activations);
    const Topology here{.ranks = world().size(), .ranks_per_node = world().size()};
    EXPECT_EQ(found.second.activations, plan_memory(config, here, 0, 0).footprint.activations) << "as planned";
  }
}

using ResNetOnDevice = test::OnDevice;

TEST_F(ResNetOnDevice, ComputesWhatTheHostDoes) {
  auto config = resnet_config({"none", 0}, "block");
  const auto host = course(config);
  config.parallel.device = "device";
  expect_near(course(config).first, host.first, 1e-4, "losses");
}

}  // namespace
}  // namespace seer::train
