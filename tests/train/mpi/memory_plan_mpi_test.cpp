// SPDX-License-Identifier: Apache-2.0
// The plan is exact: memory to the byte, messages to the call. The results are the same for every choice of `auto`.
#include <gtest/gtest.h>

#include <map>

#include "seer/base/error.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

Topology here(const comm::Communicator& world) {
  return {.ranks = world.size(), .ranks_per_node = world.size()};
}

void run(Learner& learner, const comm::Communicator& world, std::int64_t updates) {
  for (std::int64_t t = 0; t < updates; ++t) {
    const GoldenBatch golden(t, world);
    learner.update(golden.batch, t, 0.05);
  }
}

TEST(MemoryPlan, FootprintIsThatOfTheRun) {
  const auto world = comm::Communicator::world();
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    for (const char* recompute : {"none", "cheap", "block"}) {
      for (const char* precision : {"fp32", "bf16"}) {
        SCOPED_TRACE(std::string(mode.shard) + " " + recompute + " " + precision);
        if (precision == std::string("bf16") && !dnn::make_host_backend()->supports(DType::bf16)) continue;
        auto config = golden_config(world.size(), mode);
        config.parallel.recompute = recompute;
        config.precision.compute = precision;
        const auto plan = plan_memory(config, here(world), 0, 0);
        Phases phases;
        Learner learner(config, world, phases, plan_memory(config, world));
        run(learner, world, 3);
        checkpoint::Snapshot snapshot;
        snapshot.take(learner.slabs());
        auto held = learner.footprint();
        held.checkpoint = snapshot.bytes_held();
        held.communication += message_copies_bytes(config, here(world));  // MPI's own
        const auto planned = rows(plan.footprint), found = rows(held);
        for (std::size_t i = 0; i < planned.size(); ++i) {
          if (std::string(planned[i].first) == "data") continue;  // no loader here
          // The parts of ranks differ by one element per bucket; rank 0 has the largest.
          if (world.is_root()) {
            EXPECT_EQ(found[i].second, planned[i].second) << planned[i].first;
          } else {
            EXPECT_LE(found[i].second, planned[i].second) << planned[i].first;
          }
        }
        EXPECT_LE(learner.pool_allocations(), 1U) << "the arena was not large enough";
      }
    }
  }
}

TEST(MemoryPlan, ArenaIsAskedForOnce) {
  const auto world = comm::Communicator::world();
  Phases phases;
  Learner learner(golden_config(world.size()), world, phases, plan_memory(golden_config(world.size()), world));
  run(learner, world, 2);
  const auto before = learner.pool_allocations();
  run(learner, world, 4);
  EXPECT_EQ(learner.pool_allocations(), before);
}

TEST(MemoryPlan, AutoFitsTheBudgetAndKeepsTheBits) {
  const auto world = comm::Communicator::world();
  auto config = golden_config(world.size());
  const auto total = [&](const char* recompute) {
    config.parallel.recompute = recompute;
    return plan_memory(config, here(world), 0, 0).footprint.total();
  };
  const auto none = total("none"), block = total("block");
  ASSERT_LT(block, none);
  std::vector<float> first;
  config.parallel.recompute = "auto";
  for (const double share : {0.1, 0.5, 0.9, 1.0}) {
    const auto budget = block + static_cast<std::int64_t>(share * static_cast<double>(none - block));
    const auto plan = plan_memory(config, here(world), budget, 0);
    EXPECT_LE(plan.footprint.total(), budget);
    if (share == 1.0) {
      EXPECT_EQ(plan.footprint.total(), none) << "recomputes without need";
    }
    Phases phases;
    Learner learner(config, world, phases, plan, dnn::make_host_backend());
    run(learner, world, 3);
    const auto parameters = learner.parameters();
    if (first.empty()) first = parameters;
    EXPECT_EQ(parameters, first) << share;
  }
}

TEST(MemoryPlan, TooSmallABudgetNamesTheSmallestThatWorks) {
  const auto world = comm::Communicator::world();
  auto config = golden_config(world.size());
  config.parallel.recompute = "auto";
  try {
    plan_memory(config, here(world), 1000, 0);
    FAIL() << "1000 bytes were enough";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    const std::string remedy = error.remedy();
    const auto at = remedy.find("memory_budget_bytes = ");
    ASSERT_NE(at, std::string::npos) << remedy;
    const auto smallest = std::stoll(remedy.substr(at + 22));
    EXPECT_LE(plan_memory(config, here(world), smallest, 0).footprint.total(), smallest);
    EXPECT_THROW(plan_memory(config, here(world), smallest - 1, 0), Error);
  }
}

TEST(MemoryPlan, TheSmallestNamedAtAStartWorksAtTheNext) {
  const auto world = comm::Communicator::world();
  auto config = golden_config(world.size());
  config.parallel.recompute = "auto";
  config.parallel.memory_budget_bytes = 1;
  Phases phases;
  try {
    const Learner learner(config, world, phases, plan_memory(config, world));
    FAIL() << "1 byte was enough";
  } catch (const Error& error) {
    const std::string remedy = error.remedy();
    const auto at = remedy.find("memory_budget_bytes = ");
    ASSERT_NE(at, std::string::npos) << remedy;
    config.parallel.memory_budget_bytes = std::stoll(remedy.substr(at + 22));
  }
  const std::vector<char> pages(std::size_t{512} << 10, 'x');  // the next start may have as much more memory
  const Learner learner(config, world, phases, plan_memory(config, world));
  EXPECT_GT(pages[0], 0);
}

}  // namespace
}  // namespace seer::train
