// SPDX-License-Identifier: Apache-2.0
// Mixed precision in whole updates, on any number of ranks: compares bf16 with the float64 reference; the loss scale.
#include <gtest/gtest.h>

#include "seer/base/error.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

using test::GoldenFile;

bool supported(DType type) {
  return dnn::make_host_backend()->supports(type);
}

config::Config precise_config(const char* compute, const char* loss_scale = "auto") {
  auto c = golden_config(comm::Communicator::world().size());
  c.precision.compute = compute;
  c.precision.loss_scale = loss_scale;
  return c;
}

/// Sets a learner's loss scale, as restoring a checkpoint does.
void set_loss_scale(Learner& learner, double scale, std::int64_t clean) {
  checkpoint::State state;
  state.loss_scale = scale;
  state.loss_scale_clean = clean;
  learner.restore(state);
}
checkpoint::State loss_scale_of(const Learner& learner) {
  checkpoint::State state;
  learner.save(state);
  return state;
}

std::vector<float> momenta_of(Learner& learner) {
  std::vector<float> out;
  for (const auto& slab : learner.slabs()) {
    if (slab.group == "momentum") out.insert(out.end(), slab.data, slab.data + (slab.end - slab.begin));
  }
  return out;
}

TEST(Precision, AllRanksSettleOnOne) {
  const auto world = comm::Communicator::world();
  auto config = precise_config("auto");
  settle_precision(config, world);
  EXPECT_EQ(config.precision.compute, dnn::has_bf16_matrix_units() ? "bf16" : "fp32");
  for (const auto& theirs : world.all_gather(config.precision.compute)) EXPECT_EQ(theirs, config.precision.compute);
  auto given = precise_config("fp16_o1");
  settle_precision(given, world);
  EXPECT_EQ(given.precision.compute, "fp16_o1");
}

// Ten updates in bf16 in each mode of sharding and recomputation.
TEST(Precision, TenUpdatesInBf16StayNearTheReference) {
  if (!supported(DType::bf16)) GTEST_SKIP() << "no bf16 on this processor";
  const auto world = comm::Communicator::world();
  const GoldenFile file("training.h5");
  const auto losses = file.read("bn_groups_1/loss").values, rates = file.read("bn_groups_1/lr").values;
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    std::vector<float> kept;
    for (const char* recompute : {"none", "cheap", "block"}) {
      auto config = precise_config("bf16");
      config.parallel.shard = mode.shard;
      config.parallel.shard_group = mode.group;
      config.parallel.recompute = recompute;
      SCOPED_TRACE(std::string(mode.shard) + " in groups of " + std::to_string(mode.group) + ", " + recompute);
      Phases phases;
      Learner learner(config, world, phases, plan_memory(config, world));
      set_golden_start(learner);
      for (std::int64_t t = 0; t < 10; ++t) {
        const auto at = static_cast<std::size_t>(t);
        const auto outcome = learner.update(GoldenBatch(t, world).batch, t, rates[at]);
        EXPECT_NEAR(outcome.loss, losses[at], 2e-2 * losses[at]) << "update " << t;
        EXPECT_EQ(outcome.loss_scale, 1);
        EXPECT_FALSE(outcome.skipped);
      }
      const auto parameters = learner.parameters();
      if (kept.empty()) kept = parameters;
      EXPECT_EQ(parameters, kept) << "the bits differ";
    }
  }
}

// A power of two changes no bit of the fraction, and norms divide by it: the run has the same bits.
TEST(Precision, LossScaleChangesNoBitOfAFloatRun) {
  const auto world = comm::Communicator::world();
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    for (const char* kind : {"lars", "sgd"}) {
      std::vector<float> parameters[2], gradients[2];
      std::vector<double> losses[2], norms[2];
      for (const int scaled : {0, 1}) {
        auto config = precise_config("fp32", scaled == 1 ? "dynamic" : "none");
        config.parallel.shard = mode.shard;
        config.parallel.shard_group = mode.group;
        config.optimizer.kind = kind;
        Phases phases;
        Learner learner(config, world, phases, plan_memory(config, world));
        for (std::int64_t t = 0; t < 4; ++t) {
          const auto outcome = learner.update(GoldenBatch(t, world).batch, t, 0.1);
          losses[scaled].push_back(outcome.loss);
          norms[scaled].push_back(outcome.grad_norm);
          EXPECT_EQ(outcome.loss_scale, scaled == 1 ? 65536 : 1);
        }
        parameters[scaled] = learner.parameters();
        gradients[scaled] = learner.gradients();
      }
      EXPECT_EQ(losses[1], losses[0]) << mode.shard;
      EXPECT_EQ(norms[1], norms[0]) << mode.shard;
      EXPECT_EQ(parameters[1], parameters[0]) << mode.shard;
      EXPECT_EQ(gradients[1], gradients[0]) << mode.shard;
    }
  }
}

// With a scale that is too large for float, every rank skips, and only the prototypes change, to length one. The scale
// halves until the gradients are finite. From there on the run equals one without overflow.
TEST(Precision, OverflowIsSkippedByAllRanksTogether) {
  const auto world = comm::Communicator::world();
  for (const char* compute : {"fp32", "bf16"}) {
    if (compute == std::string("bf16") && !supported(DType::bf16)) continue;
    for (const auto& mode : kShardModes) {
      if (mode.group > world.size()) continue;
      SCOPED_TRACE(std::string(compute) + ", " + mode.shard + " in groups of " + std::to_string(mode.group));
      auto config = precise_config(compute, "dynamic");
      config.parallel.shard = mode.shard;
      config.parallel.shard_group = mode.group;
      config.swav.freeze_prototypes_updates = 0;
      Phases phases;
      Learner learner(config, world, phases, plan_memory(config, world));
      learner.update(GoldenBatch(0, world).batch, 0, 0.1);  // some momentum
      set_loss_scale(learner, 0x1p140, 7);
      const auto& prototypes = learner.model().parameters().find("prototypes.weight");
      // Prototypes that are not of length one, as before the very first update.
      for (auto& slab : learner.slabs()) {
        if (slab.group != "model" || slab.name != prototypes.name) continue;
        for (std::int64_t i = 0; i < slab.end - slab.begin; ++i) slab.data[i] *= 1.5F;
      }
      learner.share_loaded();
      const auto before = learner.parameters(), momenta = momenta_of(learner);
      const std::vector<float> statistics(learner.buffers(),
                                          learner.buffers() + learner.model().buffers().block_elems());
      const auto outcome = learner.update(GoldenBatch(1, world).batch, 1, 0.3);
      EXPECT_TRUE(outcome.skipped);
      EXPECT_FALSE(std::isfinite(outcome.grad_norm));
      EXPECT_TRUE(std::isfinite(outcome.loss)) << "the reported loss is without the scale";
      EXPECT_EQ(outcome.loss_scale, 0x1p140);
      EXPECT_EQ(loss_scale_of(learner).loss_scale, 0x1p139);
      EXPECT_EQ(loss_scale_of(learner).loss_scale_clean, 0);
      const auto after = learner.parameters();
      const auto first = static_cast<std::size_t>(prototypes.offset);
      EXPECT_TRUE(std::equal(before.begin(), before.begin() + prototypes.offset, after.begin()));
      for (std::int64_t row = 0; row < prototypes.shape[0]; ++row) {
        double square = 0;
        for (std::int64_t i = 0; i < prototypes.shape[1]; ++i) {
          square += std::pow(after[first + static_cast<std::size_t>(row * prototypes.shape[1] + i)], 2);
        }
        EXPECT_NEAR(square, 1, 1e-5) << row;
      }
      EXPECT_EQ(momenta_of(learner), momenta);
      EXPECT_TRUE(std::equal(statistics.begin(), statistics.end(), learner.buffers()));

      int skipped = 1;
      Learner::Outcome clean;
      for (std::int64_t t = 2; t < 60; ++t) {
        clean = learner.update(GoldenBatch(t, world).batch, t, 0.1);
        if (!clean.skipped) break;
        ++skipped;
      }
      EXPECT_FALSE(clean.skipped);
      EXPECT_EQ(clean.loss_scale, std::ldexp(1.0, 140 - skipped));
      EXPECT_GT(skipped, 10);
      EXPECT_NE(learner.parameters(), after);
      EXPECT_TRUE(std::isfinite(clean.grad_norm));
    }
  }
}

// If images are not finite on one rank, all ranks skip, and the running statistics do not change.
TEST(Precision, OneRanksNanIsEveryRanksSkip) {
  const auto world = comm::Communicator::world();
  Phases phases;
  Learner learner(precise_config("fp32", "dynamic"), world, phases,
                  plan_memory(precise_config("fp32", "dynamic"), world));
  learner.update(GoldenBatch(0, world).batch, 0, 0.1);
  const auto before = learner.parameters();
  const GoldenBatch golden(1, world);
  if (world.rank() == world.size() - 1) golden.batch.groups[0].images.f32()[0] = std::nanf("");
  EXPECT_TRUE(learner.update(golden.batch, 1, 0.3).skipped);
  EXPECT_EQ(loss_scale_of(learner).loss_scale, 32768);
  const auto after = learner.parameters();
  for (std::size_t i = 0; i < after.size(); ++i) ASSERT_NEAR(after[i], before[i], 1e-6F);
  for (std::int64_t i = 0; i < learner.model().buffers().block_elems(); ++i) {
    ASSERT_TRUE(std::isfinite(learner.buffers()[i]));
  }
  EXPECT_FALSE(learner.update(GoldenBatch(2, world).batch, 2, 0.1).skipped);
}

TEST(Precision, LossScaleGrowsAfterCleanUpdatesAndResumes) {
  const auto world = comm::Communicator::world();
  Phases phases;
  Learner learner(precise_config("fp32", "dynamic"), world, phases,
                  plan_memory(precise_config("fp32", "dynamic"), world));
  EXPECT_EQ(loss_scale_of(learner).loss_scale, 65536);
  EXPECT_EQ(loss_scale_of(learner).loss_scale_clean, 0);
  set_loss_scale(learner, 1024, 1998);
  EXPECT_EQ(learner.update(GoldenBatch(0, world).batch, 0, 0.1).loss_scale, 1024);
  const auto state = loss_scale_of(learner);
  EXPECT_EQ(state.loss_scale, 1024);
  EXPECT_EQ(state.loss_scale_clean, 1999);

  Learner resumed(precise_config("fp32", "dynamic"), world, phases,
                  plan_memory(precise_config("fp32", "dynamic"), world));
  resumed.restore(state);
  EXPECT_EQ(resumed.update(GoldenBatch(1, world).batch, 1, 0.1).loss_scale, 1024);
  EXPECT_EQ(loss_scale_of(resumed).loss_scale, 2048);
  EXPECT_EQ(loss_scale_of(resumed).loss_scale_clean, 0);
  set_loss_scale(resumed, LossScale::kMost, 1999);
  resumed.update(GoldenBatch(2, world).batch, 2, 0.1);
  EXPECT_EQ(loss_scale_of(resumed).loss_scale, LossScale::kMost) << "the scale stops there";

  // Checkpoints of runs without a loss scale change nothing; so do those of versions that had none.
  Learner fresh(precise_config("fp32", "dynamic"), world, phases,
                plan_memory(precise_config("fp32", "dynamic"), world));
  fresh.restore(checkpoint::State());
  EXPECT_EQ(loss_scale_of(fresh).loss_scale, 65536);
  Learner none(precise_config("fp32"), world, phases, plan_memory(precise_config("fp32"), world));
  none.restore(state);
  EXPECT_EQ(none.update(GoldenBatch(0, world).batch, 0, 0.1).loss_scale, 1);
  EXPECT_LT(loss_scale_of(none).loss_scale_clean, 0);
}

TEST(Precision, AScaleThatFallsOutOfRangeEndsTheRun) {
  LossScale scale([] {
    config::Precision p;
    p.loss_scale = "dynamic";
    return p;
  }());
  int halvings = 0;
  try {
    for (; halvings < 1000; ++halvings) scale.observe(false);
    FAIL() << "the scale never reached its limit";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::numerics);
    EXPECT_TRUE(e.agreed());
  }
  EXPECT_EQ(halvings, 16 + 126);
}

TEST(Precision, AutoScalesTheLossForFp16Alone) {
  for (const auto& [compute, loss_scale, dynamic] : {std::tuple("fp32", "auto", false),
                                                     {"bf16", "auto", false},
                                                     {"fp16_o1", "auto", true},
                                                     {"fp16_o1", "none", false},
                                                     {"bf16", "dynamic", true}}) {
    config::Precision p;
    p.compute = compute;
    p.loss_scale = loss_scale;
    EXPECT_EQ(LossScale(p).dynamic(), dynamic) << compute << " " << loss_scale;
  }
}

TEST(Precision, AllocatesNothingAfterTheSecondUpdate) {
  if (!supported(DType::bf16)) GTEST_SKIP() << "no bf16 on this processor";
  const auto world = comm::Communicator::world();
  Phases phases;
  Learner learner(precise_config("bf16", "dynamic"), world, phases,
                  plan_memory(precise_config("bf16", "dynamic"), world));
  std::uint64_t after_second = 0;
  for (std::int64_t t = 0; t < 5; ++t) {
    learner.update(GoldenBatch(t, world).batch, t, 0.3);
    if (t == 1) after_second = learner.pool_allocations();
  }
  EXPECT_EQ(learner.pool_allocations(), after_second);
}

TEST(Precision, Fp16RunsOrIsRefusedWithWhatItNeeds) {
  const auto world = comm::Communicator::world();
  Phases phases;
  if (supported(DType::f16)) {
    Learner learner(precise_config("fp16_o1"), world, phases, plan_memory(precise_config("fp16_o1"), world));
    const auto outcome = learner.update(GoldenBatch(0, world).batch, 0, 0.1);
    EXPECT_EQ(outcome.loss_scale, 65536);
    EXPECT_TRUE(std::isfinite(outcome.loss));
    return;
  }
  try {
    make_backend(precise_config("fp16_o1"), world);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_TRUE(e.agreed());
    EXPECT_NE(std::string(e.what()).find("avx512_fp16"), std::string::npos) << e.what();
    EXPECT_NE(e.remedy().find(supported(DType::bf16) ? "\"bf16\"" : "\"fp32\""), std::string::npos) << e.remedy();
  }
}

}  // namespace
}  // namespace seer::train
