// SPDX-License-Identifier: Apache-2.0
// Checkpoints that a second thread of each rank writes.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../scratch.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/h5/file.hpp"

namespace seer {
namespace {

using checkpoint::Background;
using checkpoint::Snapshot;
using comm::Communicator;
using test::cut;
using test::some_state;
using test::Tensors;

class InBackground : public testing::Test {
 protected:
  void TearDown() override { world_.barrier(); }
  std::vector<checkpoint::Slab> slabs(std::int64_t update, std::vector<std::vector<float>>& store) const {
    const Tensors tensors(static_cast<std::uint64_t>(update));
    const auto n = tensors.elements();
    return tensors.slabs(cut(n, world_.rank(), world_.size(), 0), cut(n, world_.rank() + 1, world_.size(), 0), true,
                         store);
  }
  Communicator world_ = Communicator::world();
  test::Scratch scratch_{world_};
};

TEST_F(InBackground, TheCallerGoesOnMeanwhile) {
  Background background(world_, true);
  ASSERT_TRUE(background.threaded()) << "this MPI lets only one thread call it";
  std::atomic<bool> released = false;
  std::thread::id thread;
  background.start([&](const Communicator& comm) {
    thread = std::this_thread::get_id();
    while (!released) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    comm.barrier();
  });
  EXPECT_TRUE(background.busy());
  EXPECT_FALSE(background.finished());
  EXPECT_EQ(world_.all_reduce(std::int64_t{1}, comm::Op::sum), world_.size()) << "collectives beside the job's";
  released = true;
  const auto outcome = background.wait();
  EXPECT_FALSE(outcome.error);
  EXPECT_GT(outcome.seconds, 0);
  EXPECT_NE(thread, std::this_thread::get_id());
  EXPECT_FALSE(background.busy());
  EXPECT_EQ(background.traffic().empty(), world_.size() == 1);
}

TEST_F(InBackground, WithoutAThreadItIsDoneAtOnce) {
  Background background(world_, false);
  EXPECT_FALSE(background.threaded());
  std::thread::id thread;
  background.start([&](const Communicator&) { thread = std::this_thread::get_id(); });
  EXPECT_EQ(thread, std::this_thread::get_id());
  EXPECT_TRUE(background.finished());
  EXPECT_FALSE(background.wait().error);
}

TEST_F(InBackground, ErrorsComeBackToAllAndTheNextOneWorks) {
  Background background(world_, true);
  background.start([&](const Communicator& comm) {
    comm::agree(comm, "failing", [&] {
      if (comm.rank() == comm.size() - 1) throw Error(ExitCode::file, "no space");
    });
  });
  const auto failed = background.wait();
  ASSERT_TRUE(failed.error);
  EXPECT_TRUE(failed.error->agreed());
  EXPECT_EQ(failed.error->code(), ExitCode::file);
  EXPECT_EQ(std::string(failed.error->what()).find("no space"), 0U);
  bool ran = false;
  background.start([&](const Communicator&) { ran = true; });
  EXPECT_FALSE(background.wait().error);
  EXPECT_TRUE(ran);
}

TEST_F(InBackground, TheBitsAreThoseOfTheMomentOfTheCopy) {
  std::vector<std::vector<float>> store, other;
  const auto given = slabs(3, store);
  const auto synchronous = checkpoint::save(world_, scratch_.path() + "/a", given, some_state(3, world_.size()));
  Background background(world_, true);
  Snapshot snapshot;
  snapshot.take(given);
  EXPECT_EQ(snapshot.bytes_held(), Snapshot::bytes(given));
  std::string written;
  std::atomic<bool> released = false;
  background.start([&](const Communicator& comm) {
    while (!released) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    written = checkpoint::save(comm, scratch_.path() + "/b", snapshot.slabs(), some_state(3, world_.size()));
  });
  for (auto& values : store) std::fill(values.begin(), values.end(), -1.0F);  // the training goes on
  released = true;
  ASSERT_FALSE(background.wait().error);
  EXPECT_EQ(checkpoint::find_valid(world_, scratch_.path() + "/b"), written);
  EXPECT_EQ(to_json(checkpoint::read_manifest(written)), to_json(checkpoint::read_manifest(synchronous)));
  // A second copy of the same size uses the memory of the first.
  const auto* place = snapshot.slabs().front().data;
  snapshot.take(slabs(4, other));
  EXPECT_EQ(snapshot.slabs().front().data, place);
}

TEST_F(InBackground, Hdf5IsReadMeanwhile) {
  std::vector<std::vector<float>> store;
  const auto given = slabs(1, store);
  const auto first = checkpoint::save(world_, scratch_.path(), given, some_state(1, world_.size()));
  Background background(world_, true);
  for (std::int64_t update = 2; update < 12; ++update) {
    background.start([&](const Communicator& comm) {
      checkpoint::save(comm, scratch_.path(), given, some_state(update, world_.size()));
    });
    std::int64_t reads = 0;
    do {
      const auto file = h5::File::open(first + "/state.h5");
      ASSERT_EQ(file.get_int("/state", "update"), 1);
      ASSERT_EQ(file.read_all<float>("/state/queue", h5::Type::f32), some_state(1, 1).method.tensors["queue"].values);
      ASSERT_FALSE(file.exists("/nothing"));
      ++reads;
    } while (!background.finished());
    EXPECT_FALSE(background.wait().error) << "update " << update;
    EXPECT_GT(reads, 0);
  }
  EXPECT_EQ(checkpoint::find_valid(world_, scratch_.path()), scratch_.path() + "/checkpoints/update-00000011");
}

}  // namespace
}  // namespace seer
