// SPDX-License-Identifier: Apache-2.0
// Bad numbers on one rank: every rank skips the update, knows where it began, and has the bits of a run without this
// update.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/run/guard.hpp"
#include "seer/train/flat_state.hpp"
#include "seer/train/memory_plan.hpp"
#include "train/mpi/support.hpp"

namespace seer::run {
namespace {

using namespace train;

/// Learners keep a pointer to it. Never freed, because statics are destroyed after MPI has ended.
const comm::Communicator& world() {
  static const auto* all = new comm::Communicator(comm::Communicator::world());
  return *all;
}

config::Config guarded(const ShardMode& mode, bool overlap = true) {
  auto c = golden_config(world().size());
  c.parallel.shard = mode.shard;
  c.parallel.shard_group = mode.group;
  c.parallel.overlap = overlap;
  c.swav.freeze_prototypes_updates = 0;
  c.swav.queue_length = 2 * kImages;
  return c;
}

/// All that an update changes, as this rank holds it.
struct Everything {
  std::vector<float> parameters, momenta, statistics, queue;
  std::map<std::string, std::int64_t> numbers;
  explicit Everything(Learner& learner)
      : parameters(learner.parameters()),
        statistics(learner.buffers(), learner.buffers() + learner.model().buffers().block_elems()) {
    for (const auto& slab : learner.slabs()) {
      if (slab.group == "momentum") momenta.insert(momenta.end(), slab.data, slab.data + (slab.end - slab.begin));
    }
    checkpoint::State state;
    learner.save(state);
    queue = state.method.tensors["queue"].values;
    numbers = state.method.numbers;
  }
  bool operator==(const Everything&) const = default;
};

/// Updates of the reference's batches; `spoil` may change those of update 3 (numbered from 1).
Learner::Outcome run_to(Learner& learner, std::int64_t from, std::int64_t to,
                        const std::function<void(data::Batch&)>& spoil = {}) {
  const auto& ranks = world();
  Learner::Outcome last;
  for (std::int64_t t = from; t < to; ++t) {
    GoldenBatch golden(t, ranks);
    for (std::int64_t i = 0; i < golden.batch.images; ++i) {
      golden.batch.positions.push_back(static_cast<std::uint64_t>(100 * t + ranks.rank() * golden.batch.images + i));
    }
    if (spoil && t == 2) spoil(golden.batch);
    last = learner.update(golden.batch, t, 0.1);
  }
  return last;
}

void for_every_mode(const std::function<void(const config::Config&)>& test) {
  for (const auto& mode : kShardModes) {
    if (mode.group > world().size()) continue;
    for (const bool overlap : {true, false}) {
      SCOPED_TRACE(std::string(mode.shard) + " in groups of " + std::to_string(mode.group) +
                   (overlap ? ", overlap" : ""));
      test(guarded(mode, overlap));
    }
  }
}

TEST(Guard, NanInOneRanksGradientIsSkippedByAllAndLeavesEveryBit) {
  const int bad = world().size() - 1;
  for (const char* compute : {"fp32", "bf16"}) {
    if (compute == std::string("bf16") && !dnn::make_host_backend()->supports(DType::bf16)) continue;
    for_every_mode([&](config::Config config) {
      config.precision.compute = compute;
      config.faults.nan_updates = {3};
      config.faults.nan_rank = bad;
      Phases phases;
      Learner learner(config, world(), phases, plan_memory(config, world()));
      EXPECT_FALSE(run_to(learner, 0, 2).skipped);
      const Everything before(learner);
      const auto outcome = run_to(learner, 2, 3);
      EXPECT_TRUE(outcome.skipped);
      EXPECT_EQ(outcome.cause, Cause::not_finite);
      EXPECT_TRUE(std::isfinite(outcome.loss));
      EXPECT_FALSE(std::isfinite(outcome.grad_norm));
      EXPECT_TRUE(Everything(learner) == before);
      ASSERT_EQ(outcome.culprits.size(), 1U);
      EXPECT_EQ(outcome.culprits[0].rank, bad);
      EXPECT_TRUE(outcome.culprits[0].what.starts_with("the gradient of trunk_output.block"))
          << outcome.culprits[0].what;
      EXPECT_EQ(outcome.culprits[0].host, log::host_name());
      const std::int64_t mine = kImages / world().size();
      ASSERT_EQ(outcome.culprits[0].images.size(), static_cast<std::size_t>(mine));
      EXPECT_EQ(outcome.culprits[0].images[0], static_cast<std::uint64_t>(200 + bad * mine));
      EXPECT_FALSE(run_to(learner, 3, 5).skipped);

      // A run that never saw the third batch.
      config.faults.nan_updates.clear();
      Learner other(config, world(), phases, plan_memory(config, world()));
      run_to(other, 0, 2);
      run_to(other, 3, 5);
      EXPECT_TRUE(Everything(learner) == Everything(other));
    });
  }
}

// The numbers of every rank are small, but their sum is NaN: memory or network of a node is faulty, and the run must
// not go on.
TEST(Guard, ASumThatCannotBeIsNoUpdate) {
  for_every_mode([](const config::Config& config) {
    Phases phases;
    const auto model = method::make_model(config);
    FlatState state(config, world(), model, phases, device::Queue{});
    state.fill([](const nn::Parameter& p, float* values) { std::fill_n(values, p.elems, 0.5F); });
    const auto begins = model.segment_begins();
    nn::Context ctx;
    state.begin_update();
    for (std::size_t s = state.segments(); s-- > 0;) {
      state.need(ctx, s, Direction::backward);
      state.open_gradients(ctx, s);
      std::fill_n(ctx.grad(begins[s]), begins[s + 1] - begins[s], s == 1 ? std::nanf("") : 1.0F);
      state.drop(s, Direction::backward);
      state.close_gradients(s);
    }
    try {
      state.step(0.1);
      ADD_FAILURE() << "went on";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::device);
      EXPECT_NE(std::string(e.what()).find("of the gradient of trunk_output.block"), std::string::npos) << e.what();
    }
  });
}

// Gradients that are finite on every rank, but whose sum overflows: all ranks skip them.
TEST(Guard, FiniteGradientsWithoutAFiniteSumAreSkipped) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  for_every_mode([](const config::Config& config) {
    Phases phases;
    const auto model = method::make_model(config);
    FlatState state(config, world(), model, phases, device::Queue{});
    EXPECT_LT(state.most_gradient(), std::numeric_limits<float>::max() / static_cast<float>(world().size()));
    const auto begins = model.segment_begins();
    nn::Context ctx;
    state.fill([](const nn::Parameter& p, float* values) { std::fill_n(values, p.elems, 0.5F); });
    for (const bool safe : {true, false}) {
      state.begin_update();
      for (std::size_t s = state.segments(); s-- > 0;) {
        state.need(ctx, s, Direction::backward);
        state.open_gradients(ctx, s);
        const float value = safe ? state.most_gradient() : std::numeric_limits<float>::max();
        std::fill_n(ctx.grad(begins[s]), begins[s + 1] - begins[s], value);
        state.drop(s, Direction::backward);
        state.close_gradients(s);
      }
      EXPECT_EQ(std::isfinite(state.gradient_norm()), safe);
      state.skip();
    }
  });
}

// Bad pixels are found where they began, although BatchNorm's sums (or, without groups, the codes) spread them at once.
TEST(Guard, BadPixelsAreFoundOnTheirRank) {
  const int bad = world().size() - 1;
  for (const int bn_group : {world().size(), 1}) {
    for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      auto config = guarded({"none", 0});
      config.parallel.bn_group_size = bn_group;
      Phases phases;
      Learner learner(config, world(), phases, plan_memory(config, world()));
      run_to(learner, 0, 2);
      const Everything before(learner);
      const auto outcome = run_to(learner, 2, 3, [&](data::Batch& batch) {
        if (world().rank() == bad) batch.groups[1].images.slice(batch.images, 1).f32()[5] = value;  // its second crop
      });
      EXPECT_TRUE(outcome.skipped);
      EXPECT_TRUE(Everything(learner) == before);
      ASSERT_EQ(outcome.culprits.size(), 1U);
      EXPECT_EQ(outcome.culprits[0].rank, bad);
      EXPECT_EQ(outcome.culprits[0].what,
                "the pixels of crop 3 of image " + std::to_string(200 + bad * kImages / world().size()));
    }
  }
}

// Faulty memory on one rank: its first layer gives infinite values for finite pixels.
TEST(Guard, ActivationsAreFoundInTheirLayer) {
  Phases phases;
  Learner learner(guarded({"none", 0}), world(), phases, plan_memory(guarded({"none", 0}), world()));
  run_to(learner, 0, 2);
  if (world().is_root()) {
    for (const auto& slab : learner.slabs()) {
      if (slab.group == "model" && slab.name == "stem.0.weight") slab.data[0] = std::numeric_limits<float>::infinity();
    }
  }
  const auto outcome = run_to(learner, 2, 3);
  EXPECT_EQ(outcome.cause, Cause::not_finite);
  ASSERT_EQ(outcome.culprits.size(), 1U);
  EXPECT_EQ(outcome.culprits[0].rank, 0);
  // Alone a rank shares no sums: then the scores are the first that is looked at.
  EXPECT_EQ(outcome.culprits[0].what, world().size() > 1 ? "the activations in stem" : "the output of the head");
}

TEST(Guard, ARefusedLossLeavesEveryBit) {
  for_every_mode([](const config::Config& config) {
    Phases phases;
    Learner learner(config, world(), phases, plan_memory(config, world()));
    run_to(learner, 0, 2);
    const Everything before(learner);
    double seen = 0;
    learner.refuse_losses([&](double loss) {
      seen = loss;
      return true;
    });
    const auto outcome = run_to(learner, 2, 3);
    EXPECT_EQ(outcome.cause, Cause::outlier);
    EXPECT_EQ(outcome.loss, seen);
    EXPECT_FALSE(outcome.loss_counts());
    EXPECT_GE(outcome.culprits.size(), 1U);
    EXPECT_TRUE(Everything(learner) == before);
    learner.refuse_losses([](double) { return false; });
    EXPECT_FALSE(run_to(learner, 3, 4).skipped);
  });
}

TEST(Guard, ASecondPassChangesNoBit) {
  for_every_mode([](config::Config config) {
    Phases phases;
    Learner once(config, world(), phases, plan_memory(config, world()));
    config.guard.replay_every = 2;
    Learner twice(config, world(), phases, plan_memory(config, world()));
    const auto a = run_to(once, 0, 5), b = run_to(twice, 0, 5);
    EXPECT_EQ(b.cause, Cause::none);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_TRUE(Everything(once) == Everything(twice));
  });
}

TEST(Guard, AFlippedBitNamesItsRank) {
  const int liar = world().size() / 2;
  for_every_mode([&](config::Config config) {
    config.guard.replay_every = 3;
    config.faults.flip_update = 3;
    config.faults.flip_rank = liar;
    Phases phases;
    Learner learner(config, world(), phases, plan_memory(config, world()));
    run_to(learner, 0, 2);
    const Everything before(learner);
    const auto outcome = run_to(learner, 2, 3);
    EXPECT_EQ(outcome.cause, Cause::replay);
    ASSERT_EQ(outcome.culprits.size(), 1U);
    EXPECT_EQ(outcome.culprits[0].rank, liar);
    EXPECT_TRUE(outcome.culprits[0].what.starts_with("the gradients of trunk_output.block"))
        << outcome.culprits[0].what;
    EXPECT_TRUE(Everything(learner) == before);
    EXPECT_FALSE(run_to(learner, 3, 6).skipped);
  });
}

// A queue that skipped an update continues at the same place after a checkpoint.
TEST(Guard, QueueWithASkipSurvivesACheckpoint) {
  auto config = guarded({"none", 0});
  config.swav.queue_length = 3 * kImages;
  config.faults.nan_updates = {3};
  Phases phases;
  Learner learner(config, world(), phases, plan_memory(config, world())),
      resumed(config, world(), phases, plan_memory(config, world()));
  run_to(learner, 0, 6);
  checkpoint::State state;
  state.update = 6;
  learner.save(state);
  EXPECT_EQ(state.method.numbers.at("queue_place"), 5 % 3);
  const auto from = learner.slabs();
  auto to = resumed.slabs();
  for (std::size_t i = 0; i < to.size(); ++i) std::copy_n(from[i].data, from[i].end - from[i].begin, to[i].data);
  resumed.share_loaded();
  resumed.restore(state);
  run_to(learner, 6, 8);
  run_to(resumed, 6, 8);
  EXPECT_TRUE(Everything(learner) == Everything(resumed));
}

TEST(Guard, IsInTheMemoryPlan) {
  for (const auto& mode : kShardModes) {
    if (mode.group > world().size()) continue;
    auto config = guarded(mode);
    config.checkpoint.async = false;  // no saver here
    config.guard.replay_every = 1;
    config.faults.nan_updates = {1};
    config.parallel.recompute = "cheap";
    const Topology here{.ranks = world().size(), .ranks_per_node = world().size()};
    const auto plan = plan_memory(config, here, 0, 0);
    Phases phases;
    Learner learner(config, world(), phases, plan_memory(config, world()));
    run_to(learner, 0, 3);
    EXPECT_LE(learner.pool_allocations(), 1U) << "the arena was not large enough";
    if (!world().is_root()) continue;
    auto held = learner.footprint();
    held.communication += message_copies_bytes(config, here);  // MPI's own
    const auto planned = rows(plan.footprint), found = rows(held);
    for (std::size_t i = 0; i < planned.size(); ++i) {
      if (planned[i].first == std::string("data")) continue;  // no loader here
      EXPECT_EQ(found[i].second, planned[i].second) << mode.shard << " " << planned[i].first;
    }
  }
}

}  // namespace
}  // namespace seer::run
