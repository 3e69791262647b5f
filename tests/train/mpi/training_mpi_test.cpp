// SPDX-License-Identifier: Apache-2.0
// Compares ten updates with the float64 reference for every number of ranks and size of BatchNorm groups (training.h5),
// and checks that results do not depend on the number of ranks.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <numeric>

#include "seer/base/error.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

using test::GoldenFile;
using test::relative_error;

/// Compares ten updates with training.h5. Returns the parameters at the end.
std::vector<float> expect_reference(const config::Config& config, const std::string& name) {
  const auto world = comm::Communicator::world();
  const GoldenFile file("training.h5");
  Phases phases;
  Learner learner(config, world, phases, plan_memory(config, world));
  set_golden_start(learner);
  const auto losses = file.read(name + "/loss").values, rates = file.read(name + "/lr").values;
  for (std::int64_t t = 0; t < 10; ++t) {
    const GoldenBatch golden(t, world);
    const auto outcome = learner.update(golden.batch, t, rates[static_cast<std::size_t>(t)], Learner::Figures::yes);
    const double wanted = losses[static_cast<std::size_t>(t)];
    EXPECT_NEAR(outcome.loss, wanted, 1e-4 * wanted) << name << " update " << t;
    EXPECT_EQ(outcome.figures.size(), 2U);
    EXPECT_EQ(outcome.figures.at(0).name, "code_entropy");
    EXPECT_GT(outcome.figures.at(0).value, 0);
    EXPECT_EQ(outcome.figures.at(1).name, "prediction_entropy");
    EXPECT_LE(outcome.figures.at(1).value, std::log(24.0) + 1e-6);
    if (t > 0) continue;
    const auto gradients = learner.gradients();
    for (const auto& p : learner.model().parameters().entries()) {
      const float* g = gradients.data() + p.offset;
      EXPECT_LT(relative_error(std::vector<float>(g, g + p.elems), file.read(name + "/first_grad/" + p.name).values),
                1e-3)
          << name << " " << p.name;
    }
  }
  const auto parameters = learner.parameters();
  for (const auto& p : learner.model().parameters().entries()) {
    const float* v = parameters.data() + p.offset;
    EXPECT_LT(relative_error(std::vector<float>(v, v + p.elems), file.read(name + "/final/" + p.name).values), 1e-3)
        << name << " " << p.name;
  }
  if (!world.is_root()) return parameters;  // running statistics: those of the first group
  for (const auto& b : learner.model().buffers().entries()) {
    const float* v = learner.buffers() + b.offset;
    EXPECT_LT(relative_error(std::vector<float>(v, v + b.elems), file.read(name + "/final_buffer/" + b.name).values),
              1e-3)
        << name << " " << b.name;
  }
  return parameters;
}

TEST(Training, TenUpdatesMatchTheReferenceForEveryGrouping) {
  const auto world = comm::Communicator::world();
  for (const int groups : {1, 2, 4}) {
    if (world.size() % groups != 0) continue;
    expect_reference(golden_config(world.size() / groups), "bn_groups_" + std::to_string(groups));
  }
}

// Every combination of sharding and recomputation gives the reference's numbers. Recomputation changes no bit. Modes of
// sharding differ by 1e-5 at most, because sums over ranks have another order.
TEST(Training, ShardingAndRecomputationChangeNothing) {
  const auto world = comm::Communicator::world();
  std::vector<float> plain;
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    for (const bool overlap : {true, false}) {
      std::vector<float> kept;
      for (const char* recompute : {"none", "cheap", "block"}) {
        auto config = golden_config(world.size(), mode);
        config.parallel.recompute = recompute;
        config.parallel.overlap = overlap;
        config.parallel.bucket_bytes = overlap ? 1000 : 40000;
        SCOPED_TRACE(std::string(mode.shard) + " in groups of " + std::to_string(mode.group) + ", recompute " +
                     recompute);
        const auto parameters = expect_reference(config, "bn_groups_1");
        if (kept.empty()) kept = parameters;
        EXPECT_EQ(parameters, kept) << "the bits differ";
        if (plain.empty()) plain = parameters;
        EXPECT_LT(relative_error(parameters, std::vector<double>(plain.begin(), plain.end())), 1e-5);
      }
    }
  }
}

// With gradients in 16-bit messages, ten updates stay near those in single precision, in every mode of sharding.
TEST(Training, GradientsThatTravelInHalfPrecisionStayNear) {
  const auto world = comm::Communicator::world();
  const GoldenFile file("training.h5");
  const auto rates = file.read("bn_groups_1/lr").values, losses = file.read("bn_groups_1/loss").values;
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    SCOPED_TRACE(std::string(mode.shard) + " in groups of " + std::to_string(mode.group));
    auto config = golden_config(world.size(), mode);
    config.precision.reduce = "half";
    Phases phases;
    Learner learner(config, world, phases, plan_memory(config, world));
    set_golden_start(learner);
    for (std::int64_t t = 0; t < 10; ++t) {
      const auto at = static_cast<std::size_t>(t);
      const auto outcome = learner.update(GoldenBatch(t, world).batch, t, rates[at]);
      EXPECT_NEAR(outcome.loss, losses[at], 2e-2 * losses[at]) << "update " << t;
      if (t > 0) continue;
      double worst = 0;
      const auto gradients = learner.gradients();
      for (const auto& p : learner.model().parameters().entries()) {
        const float* g = gradients.data() + p.offset;
        worst = std::max(worst, relative_error(std::vector<float>(g, g + p.elems),
                                               file.read("bn_groups_1/first_grad/" + p.name).values));
      }
      EXPECT_LT(worst, 2e-2);
      if (world.size() > 1) {
        EXPECT_GT(worst, 1e-4) << "nothing was rounded";
      }
    }
  }
}

// The messages of an update in each mode follow from the sizes alone; seer plan relies on this.
TEST(Training, TrafficOfAnUpdateIsWhatTheModeSaysItIs) {
  const auto world = comm::Communicator::world();
  if (world.size() == 1) return;
  for (const char* reduce : {"fp32", "half"}) {
    for (const auto& mode : kShardModes) {
      if (mode.group > world.size()) continue;
      auto config = golden_config(world.size(), mode);
      config.precision.reduce = reduce;
      SCOPED_TRACE(std::string(mode.shard) + " in groups of " + std::to_string(mode.group) + ", " + reduce);
      Phases phases;
      Learner learner(config, world, phases, plan_memory(config, world));
      std::map<std::string, comm::Traffic> before, sent;
      const auto counts = [&] {
        std::map<std::string, comm::Traffic> out;
        for (const auto& t : learner.traffic()) out[t.name + " " + t.kind] = t;
        return out;
      };
      learner.update(GoldenBatch(0, world).batch, 0, 0.3);
      before = counts();
      learner.update(GoldenBatch(1, world).batch, 1, 0.3);
      for (const auto& [key, t] : counts()) {
        sent[key] = t;
        sent[key].calls -= before[key].calls;
        sent[key].bytes -= before[key].bytes;
      }
      const auto& table = learner.model().parameters();
      const std::int64_t block = table.block_elems(), wire = std::string(reduce) == "half" ? 2 : 4;
      const std::string shard = mode.shard;
      const std::int64_t group = shard == "none" ? 1 : mode.group == 0 ? world.size() : mode.group;
      EXPECT_EQ(sent["shard reduce_scatter"].bytes, group > 1 ? block * wire : 0);
      if (group == 1) {
        EXPECT_EQ(sent["replicas all_reduce"].bytes, block * wire);
        EXPECT_EQ(sent["replicas all_reduce"].group_size, world.size());
      }
      // shard = "parameters": gathers all of them for the forward pass, all but the prototypes (which stayed) for the
      // backward pass, and the prototypes once more. Other modes gather once, after the update.
      const std::int64_t gathered = group == 1 ? 0 : shard == "parameters" ? 2 * block : block;
      EXPECT_EQ(sent["shard all_gather"].bytes, gathered * 4);
      const auto squares = static_cast<std::int64_t>(2 * table.entries().size() * sizeof(double));
      EXPECT_EQ(sent["norms all_reduce"].bytes, group > 1 ? squares : 0);
      EXPECT_EQ(sent["norms all_reduce"].calls, group > 1 ? 2 : 0);
    }
  }
}

/// Copies the whole state of a learner to another one, which may have other ranks and other sharding.
void hand_over(Learner& from, const comm::Communicator& of, Learner& to) {
  std::map<std::string, std::vector<float>> tensors;
  for (const auto& slab : from.slabs()) {
    std::vector<float> tensor(static_cast<std::size_t>(
        std::accumulate(slab.shape.begin(), slab.shape.end(), std::int64_t{1}, std::multiplies<>())));
    std::copy(slab.data, slab.data + (slab.end - slab.begin), tensor.begin() + slab.begin);
    of.all_reduce(std::span(tensor));  // each element comes from one rank
    tensors[slab.group + "/" + slab.name] = std::move(tensor);
  }
  for (auto& slab : to.slabs()) {
    const auto& tensor = tensors.at(slab.group + "/" + slab.name);
    std::copy(tensor.begin() + slab.begin, tensor.begin() + slab.end, slab.data);
  }
  to.share_loaded();
}

// A checkpoint of one mode of sharding resumes in any other mode with the same bits.
TEST(Training, SlabsOfOneShardingFitAnother) {
  const auto world = comm::Communicator::world();
  const auto config_of = [&](const ShardMode& mode) {
    auto config = golden_config(world.size(), mode);
    return config;
  };
  for (const auto& from : kShardModes) {
    if (from.group > world.size()) continue;
    Phases phases;
    Learner first(config_of(from), world, phases, plan_memory(config_of(from), world));
    for (std::int64_t t = 0; t < 2; ++t) first.update(GoldenBatch(t, world).batch, t, 0.3);
    const auto whole = first.parameters();
    for (const auto& to : kShardModes) {
      if (to.group > world.size()) continue;
      Learner second(config_of(to), world, phases, plan_memory(config_of(to), world));
      hand_over(first, world, second);
      EXPECT_EQ(second.parameters(), whole) << from.shard << " to " << to.shard;
    }
  }
}

// A queue that is not yet full changes nothing; a full one does; its contents survive a save and restore.
TEST(Training, QueueIsUsedOnlyOnceItIsFilledAndSurvivesACheckpoint) {
  const auto world = comm::Communicator::world();
  auto config = golden_config(world.size());
  std::vector<double> plain, queued;
  Phases phases;
  {
    Learner learner(config, world, phases, plan_memory(config, world));
    for (std::int64_t t = 0; t < 6; ++t) plain.push_back(learner.update(GoldenBatch(t, world).batch, t, 0.3).loss);
  }
  config.swav.queue_length = 3 * kImages + 5;  // rounded down to three batches
  config.swav.queue_start_update = 1;
  Learner learner(config, world, phases, plan_memory(config, world));
  checkpoint::State state;
  std::vector<std::vector<float>> kept;
  for (std::int64_t t = 0; t < 6; ++t) {
    if (t == 5) {
      learner.save(state);
      state.update = t;
      EXPECT_EQ(state.method.numbers.at("queue_filled"), 3 * kImages);
      EXPECT_EQ(state.method.tensors.at("queue").shape, (std::vector<std::int64_t>{2, 3 * kImages, 16}));
      for (const auto& slab : learner.slabs()) kept.emplace_back(slab.data, slab.data + (slab.end - slab.begin));
    }
    queued.push_back(learner.update(GoldenBatch(t, world).batch, t, 0.3).loss);
  }
  for (std::size_t t = 0; t < 4; ++t) EXPECT_EQ(plain[t], queued[t]) << t;  // filled by updates 1, 2, 3
  EXPECT_NE(plain[4], queued[4]);

  Learner resumed(config, world, phases, plan_memory(config, world));
  auto slabs = resumed.slabs();
  for (std::size_t i = 0; i < slabs.size(); ++i) std::copy(kept[i].begin(), kept[i].end(), slabs[i].data);
  resumed.share_loaded();
  resumed.restore(state);
  EXPECT_EQ(resumed.update(GoldenBatch(5, world).batch, 5, 0.3).loss, queued[5]) << "the same bits";
}

// The queue of one rank, half filled or full, continues on many ranks with the same losses.
TEST(Training, QueueGoesOnWithAnotherNumberOfRanks) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  auto config = golden_config(world.size());
  config.swav.queue_length = 3 * kImages;
  config.swav.queue_start_update = 1;
  for (const std::int64_t handed_over_at : {3, 6}) {
    Phases phases;
    Learner one(config, alone, phases, plan_memory(config, alone)),
        many(config, world, phases, plan_memory(config, world));
    for (std::int64_t t = 0; t < 9; ++t) {
      if (t == handed_over_at) {
        checkpoint::State state;
        one.save(state);
        state.update = t;
        EXPECT_EQ(state.method.numbers.at("queue_filled"), std::min<std::int64_t>(t - 1, 3) * kImages);
        hand_over(one, alone, many);
        many.restore(state);
      }
      const double loss = one.update(GoldenBatch(t, alone).batch, t, 0.1).loss;
      if (t < handed_over_at) continue;
      EXPECT_NEAR(many.update(GoldenBatch(t, world).batch, t, 0.1).loss, loss, 1e-4) << handed_over_at << " " << t;
    }
  }
}

TEST(Training, RefusesRanksThatDoNotDivide) {
  const auto world = comm::Communicator::world();
  if (world.size() == 1) return;
  Phases phases;
  auto config = golden_config(world.size());
  config.data.global_batch = world.size() + 1;
  EXPECT_THROW(Learner(config, world, phases, plan_memory(config, world)), Error);
  if (world.size() == 4) {
    EXPECT_THROW(Learner(golden_config(3), world, phases, plan_memory(golden_config(3), world)), Error);
  }
}

TEST(Training, AllocatesNothingAfterTheSecondUpdate) {
  const auto world = comm::Communicator::world();
  Phases phases;
  Learner learner(golden_config(world.size()), world, phases, plan_memory(golden_config(world.size()), world));
  std::uint64_t after_second = 0;
  for (std::int64_t t = 0; t < 5; ++t) {
    learner.update(GoldenBatch(t, world).batch, t, 0.3);
    if (t == 1) after_second = learner.pool_allocations();
  }
  EXPECT_EQ(learner.pool_allocations(), after_second);
}

}  // namespace
}  // namespace seer::train
