// SPDX-License-Identifier: Apache-2.0
// A run whose file system fails for a while: it goes on, keeps what it has, and ends only when told so.
#include "seer/train/saver.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "checkpoint/scratch.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "support.hpp"

namespace seer {
namespace {
bool writes_fail = false;  // of this rank
}

// HDF5 writes tensors through this one; what stands in the executable comes before the library's.
extern "C" int MPI_File_write_at(MPI_File file, MPI_Offset offset, const void* data, int count, MPI_Datatype type,
                                 MPI_Status* status) {
  if (writes_fail) return MPI_ERR_NO_SPACE;
  return PMPI_File_write_at(file, offset, data, count, type, status);
}

namespace train {
namespace {

namespace fs = std::filesystem;

class SaverTest : public testing::Test {
 protected:
  void TearDown() override {
    writes_fail = false;
    world_.barrier();
  }

  config::Config configuration() const {
    auto c = golden_config(world_.size());
    c.log.run_dir = scratch_.path();
    c.checkpoint.every_updates = 10;
    c.checkpoint.keep_last = 1;
    c.checkpoint.max_failures = 2;
    return c;
  }
  Saver make() {
    return {config_, world_, phases_, traffic_, learner_, [](checkpoint::State& s) { s.images_seen = s.update * 8; }};
  }
  /// From now on every save fails: that of the last rank, which no other hears of by itself.
  void fail() { writes_fail = world_.rank() == world_.size() - 1; }
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
  Learner learner_{config_, world_, phases_};
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
  writes_fail = false;
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
    EXPECT_TRUE(told("that after 10 updates is kept"));
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
    EXPECT_NE(message.find("that after 10 updates is whole"), std::string::npos) << message;
    for (const auto& other : world_.all_gather(message)) EXPECT_EQ(other, message);
  }
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000010"});
}

TEST_F(SaverTest, TheLastOneIsTriedAgainThenIsAnError) {
  auto saver = make();
  fail();
  EXPECT_THROW(saver.finish(13), Error);
  EXPECT_EQ(entries(), std::vector<std::string>{});
  writes_fail = false;
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

}  // namespace
}  // namespace train
}  // namespace seer
