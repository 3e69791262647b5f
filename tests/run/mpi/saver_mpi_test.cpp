// SPDX-License-Identifier: Apache-2.0
// A run whose file system fails for a while: it goes on, keeps its checkpoints, and ends only after
// checkpoint.max_failures.
#include "seer/run/saver.hpp"
#include "seer/train/memory_plan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "checkpoint/failing_writes.hpp"
#include "checkpoint/scratch.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "train/mpi/support.hpp"

namespace seer::run {
namespace {

using namespace train;

namespace fs = std::filesystem;

class SaverTest : public testing::Test {
 protected:
  void TearDown() override {
    test::failing_write = 0;
    world_.barrier();
  }

  config::Config configuration() const {
    auto c = golden_config(world_.size());
    c.log.run_dir = scratch_.path();
    c.checkpoint.every_updates = 10;
    c.checkpoint.keep_last = 1;
    c.checkpoint.max_failures = 2;
    c.checkpoint.async = false;
    return c;
  }
  Saver make() {
    return {config_,
            world_,
            phases_,
            traffic_,
            learner_,
            nullptr,
            [](checkpoint::State& s) { s.images_seen = s.update * 8; }};
  }
  /// From now on every save fails on the last rank, which the other ranks cannot notice by themselves.
  void fail() { test::failing_write = world_.rank() == world_.size() - 1 ? -1 : 0; }
  std::vector<std::string> entries() {
    world_.barrier();
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& e : fs::directory_iterator(scratch_.path() + "/checkpoints", none)) {
      names.push_back(e.path().filename());
    }
    std::sort(names.begin(), names.end());
    world_.barrier();
    return names;
  }

  comm::Communicator world_ = comm::Communicator::world();
  test::Scratch scratch_{world_};
  config::Config config_ = configuration();
  Phases phases_;
  Learner learner_{config_, world_, phases_, plan_memory(config_, world_)};
  TrafficLedger traffic_{[this] { return learner_.traffic(); }};
};

TEST_F(SaverTest, AFailureKeepsTheOneBeforeAndIsTriedAgainAtTheNextInterval) {
  auto saver = make();
  saver.after_update(7);
  EXPECT_EQ(entries(), std::vector<std::string>{}) << "not due";
  saver.after_update(10);
  fail();
  saver.after_update(20);
  saver.after_update(30);
  EXPECT_EQ(saver.failures_in_a_row(), 2);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
  test::failing_write = 0;
  saver.after_update(31);
  EXPECT_EQ(saver.failures_in_a_row(), 2) << "not due";
  saver.after_update(40);
  EXPECT_EQ(saver.failures_in_a_row(), 0);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000040"});
  if (world_.is_root()) {
    const auto warnings = log::warnings();
    const auto told = [&](const std::string& text) {
      return std::any_of(warnings.begin(), warnings.end(), [&](const auto& w) { return w.find(text) != w.npos; });
    };
    EXPECT_TRUE(told("no checkpoint after 20 updates")) << "each failure is told";
    EXPECT_TRUE(told("no checkpoint after 30 updates"));
    EXPECT_TRUE(told("the checkpoint after 10 updates is kept"));
    EXPECT_TRUE(told("(2 in a row failed, checkpoint.max_failures = 2)"));
  }
}

TEST_F(SaverTest, MoreThanMaxFailuresInARowEndTheRun) {
  auto saver = make();
  saver.after_update(10);
  fail();
  EXPECT_FALSE(saver.save(20));
  EXPECT_FALSE(saver.save(30));
  try {
    saver.save(40);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    EXPECT_TRUE(e.agreed());
    const auto message = e.message();
    EXPECT_NE(message.find("3 checkpoints in a row could not be written"), std::string::npos) << message;
    EXPECT_NE(message.find("goes on from the checkpoint after 10 updates, which is whole"), std::string::npos)
        << message;
    for (const auto& other : world_.all_gather(message)) EXPECT_EQ(other, message);
  }
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
}

TEST_F(SaverTest, TheLastOneIsTriedAgainThenIsAnError) {
  auto saver = make();
  fail();
  EXPECT_THROW(saver.finish(13), Error);
  EXPECT_EQ(entries(), std::vector<std::string>{});
  test::failing_write = 0;
  saver.finish(13);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000013"});
  saver.finish(13);  // there already
}

TEST_F(SaverTest, AVanishedFolderIsMadeAgain) {
  auto saver = make();
  saver.after_update(10);
  world_.barrier();
  if (world_.is_root()) fs::remove_all(scratch_.path());
  world_.barrier();
  EXPECT_TRUE(saver.save(20));
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000020"});
}

TEST_F(SaverTest, AFolderThatIsNoneIsSurvived) {
  auto saver = make();
  if (world_.is_root()) std::ofstream(scratch_.path() + "/checkpoints") << "no folder";
  world_.barrier();
  EXPECT_FALSE(saver.save(10));
  world_.barrier();
  if (world_.is_root()) fs::remove(scratch_.path() + "/checkpoints");
  world_.barrier();
  EXPECT_TRUE(saver.save(20));
}

/// The same with writes beside the training: the outcome of a save is known when the next one is due.
class AsyncSaverTest : public SaverTest {
 protected:
  AsyncSaverTest() { config_.checkpoint.async = true; }
};

TEST_F(AsyncSaverTest, AFailureIsCountedAtTheNextSaveAndTriedAgain) {
  auto saver = make();
  saver.after_update(10);
  saver.settle();
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
  fail();
  EXPECT_TRUE(saver.save(20)) << "nothing is known of it yet";
  saver.settle();
  EXPECT_EQ(saver.failures_in_a_row(), 1);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
  saver.after_update(30);
  saver.settle();
  EXPECT_EQ(saver.failures_in_a_row(), 2);
  test::failing_write = 0;
  saver.after_update(40);
  saver.settle();
  EXPECT_EQ(saver.failures_in_a_row(), 0);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000040"});
}

TEST_F(AsyncSaverTest, MoreThanMaxFailuresInARowEndTheRun) {
  auto saver = make();
  saver.after_update(10);
  saver.settle();
  fail();
  saver.after_update(20);
  saver.after_update(30);
  saver.after_update(40);
  try {
    saver.after_update(50);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    EXPECT_TRUE(e.agreed());
    EXPECT_NE(e.message().find("3 checkpoints in a row could not be written"), std::string::npos) << e.message();
  }
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
}

TEST_F(AsyncSaverTest, TheEndWaitsForWhatIsBeingWritten) {
  auto saver = make();
  saver.after_update(10);
  saver.finish(10);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
  saver.after_update(20);
  saver.finish(23);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000023"});
  fail();
  EXPECT_THROW(saver.finish(29), Error);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000023"});
}

TEST_F(AsyncSaverTest, NothingIsSavedWhileUpdatesAreBad) {
  config_.checkpoint.keep_last = 9;
  Saver saver(config_, world_, phases_, traffic_, learner_, nullptr, [](checkpoint::State&) {});
  for (std::int64_t t = 1; t <= 23; ++t) saver.after_update(t, t < 9 || t > 12);
  saver.settle();
  EXPECT_EQ(entries(), (std::vector<std::string>{"update-00000013", "update-00000020"}));
}

TEST_F(AsyncSaverTest, LocalCopiesHaveAnIntervalOfTheirOwn) {
  setenv("SEER_RANKS_PER_NODE", "1", 1);
  config_.checkpoint.local_dir = scratch_.path() + "/disk%n";
  config_.checkpoint.local_every_updates = 4;
  const checkpoint::LocalSets local(world_, scratch_.path(), {.folder = config_.checkpoint.local_dir});
  local.go_on_from(world_, 0);
  unsetenv("SEER_RANKS_PER_NODE");
  {
    Saver saver(config_, world_, phases_, traffic_, learner_, &local, [](checkpoint::State&) {});
    for (std::int64_t t = 1; t <= 18; ++t) saver.after_update(t);
    saver.settle();
    EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
    const auto found = local.find(world_);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->update, 16);
    EXPECT_EQ(saver.bytes_held(), checkpoint::Snapshot::bytes(learner_.slabs()));
  }
  // A disk that is gone is a warning.
  world_.barrier();
  if (world_.is_root()) {
    fs::remove_all(scratch_.path() + "/disk0");
    std::ofstream(scratch_.path() + "/disk0") << "no folder";
  }
  world_.barrier();
  Saver saver(config_, world_, phases_, traffic_, learner_, &local, [](checkpoint::State&) {});
  saver.after_update(20);
  saver.settle();
  EXPECT_EQ(saver.failures_in_a_row(), 0);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000020"});
  EXPECT_NE(local.find(world_).has_value(), world_.size() == 1) << "the set of update 16 is still on the other disks";
}

}  // namespace
}  // namespace seer::run
