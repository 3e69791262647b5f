// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/watchdog.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "seer/comm/progress.hpp"

namespace seer::watch {
namespace {

using namespace comm;

void nap(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// One folder for all ranks, removed by the root.
class WatchdogTest : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "seer_watchdog_test_" + std::to_string(getpid());
    world.broadcast(folder);
    agree(world, "the folder", [&] {
      if (world.is_root()) std::filesystem::create_directories(folder + "/hang");
    });
  }
  void TearDown() override {
    world.barrier();
    if (world.is_root()) std::filesystem::remove_all(folder);
  }
  const Communicator world = Communicator::world();
  std::string folder;
};

TEST_F(WatchdogTest, ARankThatIsSlowButGoesOnIsLeftAlone) {
  const Watchdog watchdog(world, folder, {.set_up_s = 2, .update_s = 2, .checkpoint_s = 2});
  tell_update(3);
  // The last rank works for longer than the limit, and the others wait for it.
  if (world.rank() == world.size() - 1) {
    for (int i = 0; i < 80; ++i) {
      nap(0.1);
      tell_progress();
    }
  }
  world.barrier();
  if (world.size() > 1) {
    EXPECT_TRUE(std::filesystem::exists(folder + "/hang/0.txt")) << "no rank asked for the state";
  }
}

TEST_F(WatchdogTest, ALongCheckpointHasALimitOfItsOwnAndOthersRespectIt) {
  const Watchdog watchdog(world, folder, {.set_up_s = 0, .update_s = 1, .checkpoint_s = 60});
  tell_update(3);
  if (world.rank() == world.size() - 1) {
    tell_doing({"checkpoint", Stage::checkpoint});
    nap(3.5);
    tell_update(4);
  }
  world.barrier();
}

TEST_F(WatchdogTest, WhatAnEarlierStartLeftIsRemoved) {
  const std::string old = folder + "/hang/77.txt";
  agree(world, "an old answer", [&] {
    if (world.is_root()) std::filesystem::copy_file(SEER_TEST_DATA "/presets.json", old);
  });
  const Watchdog watchdog(world, folder, {.set_up_s = 60, .update_s = 60, .checkpoint_s = 60});
  EXPECT_FALSE(std::filesystem::exists(old));
}

// Ends the process, so it runs separately, and its output is compared (tests/CMakeLists.txt).
TEST_F(WatchdogTest, DISABLED_SkippedCollective) {
  const auto group = world.duplicate().named("bn");
  const Watchdog watchdog(world, folder, {.set_up_s = 1, .update_s = 1, .checkpoint_s = 1});
  tell_update(17);
  for (int i = 0; i < 40; ++i) group.all_reduce(1.0, Op::sum);
  if (world.rank() == 1) nap(60);
  group.all_reduce(1.0, Op::sum);
}

TEST(Ring, RemembersTheLastCollectivesAndCountsThemAlikeOnAllRanks) {
  const auto world = Communicator::world();
  if (world.size() == 1) return;  // sends nothing, records nothing
  const auto first = world.duplicate().named("first"), second = world.duplicate().named("second");
  for (int i = 0; i < 50; ++i) first.barrier();
  second.all_reduce(1.0, Op::sum);
  const auto last = last_collectives();
  ASSERT_EQ(last.size(), 32U);
  EXPECT_STREQ(last.back().name, "second");
  EXPECT_STREQ(last.back().kind, "all_reduce");
  EXPECT_EQ(last.back().bytes, 8);
  EXPECT_STREQ(last[last.size() - 2].name, "first");
  for (const auto& passed : last) EXPECT_GE(passed.left_ns, passed.entered_ns);
  const Trace* found = nullptr;
  for (const auto* trace : traces_in_use()) {
    if (std::string(trace->name) == "first") found = trace;
  }
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->entered, found->left);
  EXPECT_EQ(static_cast<int>(found->members.size()), world.size());
  // All ranks must have the same numbers for the communicator and for the collective, because ranks compare them.
  const std::int64_t mine = found->entered * 1000 + found->number;
  EXPECT_EQ(world.all_reduce(mine, Op::min), world.all_reduce(mine, Op::max));
}

TEST(Ring, ACommunicatorThatIsGoneLeavesItsPlaceToTheNext) {
  const auto world = Communicator::world();
  if (world.size() == 1) return;
  const Communicator first = world.duplicate();
  first.barrier();
  const auto before = traces_in_use().size();
  std::set<const Trace*> seen;
  for (int i = 0; i < 20; ++i) {
    const auto other = world.duplicate();
    other.barrier();
    const auto now = traces_in_use();
    EXPECT_EQ(now.size(), before + 1);
    seen.insert(now.begin(), now.end());
  }
  EXPECT_EQ(traces_in_use().size(), before);
  EXPECT_EQ(seen.size(), before + 1);
}

TEST(Reading, TheOldestReadIsTold) {
  const std::string a = "shards/a.h5", b = "shards/b.h5";
  EXPECT_EQ(reading_now(), "");
  {
    const Reading first(a);
    const Reading second(b);
    EXPECT_EQ(reading_now(), a);
  }
  EXPECT_EQ(reading_now(), "");
}

}  // namespace
}  // namespace seer::watch
