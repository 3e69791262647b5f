// SPDX-License-Identifier: Apache-2.0
// Checkpoints written while the learner goes on hold the bits of the update in their name, in every mode of sharding,
// also if parameters of the last step are still being gathered when the copy is taken.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "checkpoint/scratch.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/train/memory_plan.hpp"
#include "train/mpi/support.hpp"

namespace seer::run {
namespace {

using namespace train;

/// Both checkpoints are valid, and their manifests are equal.
void expect_same(const std::string& a, const std::string& b) {
  EXPECT_EQ(checkpoint::verify(a), "");
  EXPECT_EQ(checkpoint::verify(b), "");
  EXPECT_EQ(to_json(checkpoint::read_manifest(a)), to_json(checkpoint::read_manifest(b))) << b;
}

checkpoint::State state_of(Learner& learner, std::int64_t update, const comm::Communicator& world) {
  checkpoint::State state;
  state.update = update;
  state.ranks = world.size();
  learner.save(state);
  return state;
}

TEST(AsyncCheckpoint, BitsAreThoseOfTheUpdateInEveryModeOfSharding) {
  constexpr std::int64_t kUpdates = 3;
  const auto world = comm::Communicator::world();
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    for (const bool overlap : {true, false}) {
      if (!overlap && mode.shard != std::string("optimizer")) continue;
      SCOPED_TRACE(fmt::format("{} {} {}", mode.shard, mode.group, overlap));
      const test::Scratch scratch(world);
      auto config = golden_config(world.size(), mode);
      config.parallel.overlap = overlap;
      config.swav.queue_length = 2 * kImages;
      std::vector<float> ends[2];
      for (const bool async : {false, true}) {
        Phases phases;
        Learner learner(config, world, phases, plan_memory(config, world));
        set_golden_start(learner);
        checkpoint::Background background(world, async);
        checkpoint::Snapshot snapshot;
        const auto run = scratch.path() + (async ? "/async" : "/sync");
        for (std::int64_t t = 0; t < kUpdates; ++t) {
          const GoldenBatch golden(t, world);
          learner.update(golden.batch, t, 0.05);
          if (background.busy()) {
            ASSERT_FALSE(background.wait().error);
          }
          snapshot.take(learner.slabs());
          background.start([&, state = state_of(learner, t + 1, world)](const comm::Communicator& comm) {
            checkpoint::save(comm, run, snapshot.slabs(), state);
          });
        }
        ASSERT_FALSE(background.wait().error);
        ends[async ? 1 : 0] = learner.parameters();
      }
      EXPECT_EQ(ends[0], ends[1]);
      if (world.is_root()) {
        for (std::int64_t t = 1; t <= kUpdates; ++t) {
          const auto name = fmt::format("/checkpoints/update-{:08d}", t);
          expect_same(scratch.path() + "/sync" + name, scratch.path() + "/async" + name);
        }
      }
      world.barrier();
    }
  }
}

}  // namespace
}  // namespace seer::run
