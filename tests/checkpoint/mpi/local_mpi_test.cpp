// SPDX-License-Identifier: Apache-2.0
// Copies on the disks of nodes. Here every rank counts as a node, and its disk is a folder.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fmt/format.h>
#include <csignal>
#include <cstdlib>

#include "../scratch.hpp"
#include "seer/checkpoint/local.hpp"

namespace seer {
namespace {

using checkpoint::LocalSets;
using comm::Communicator;
using test::cut;
using test::some_state;
using test::Tensors;

class Local : public testing::Test {
 protected:
  void SetUp() override { setenv("SEER_RANKS_PER_NODE", "1", 1); }
  void TearDown() override {
    world_.barrier();
    unsetenv("SEER_RANKS_PER_NODE");
  }
  LocalSets sets(bool forget = false) const {
    const LocalSets out(world_, run(), {.folder = run() + "/node%n", .partner = true, .forget = forget});
    out.go_on_from(world_, INT64_MAX);
    return out;
  }
  void save(const LocalSets& to, std::int64_t update, int flavour = 0) const {
    std::vector<std::vector<float>> store;
    const Tensors tensors(static_cast<std::uint64_t>(update));
    const auto n = tensors.elements();
    to.save(world_,
            tensors.slabs(cut(n, world_.rank(), world_.size(), flavour),
                          cut(n, world_.rank() + 1, world_.size(), flavour), true, store),
            some_state(update, world_.size()));
  }
  /// The newest set is that of `update`, and gives every bit back for all ranges.
  void expect_loads(const Communicator& comm, const LocalSets& from, std::int64_t update) const {
    const auto found = from.find(comm);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->update, update);
    EXPECT_EQ(found->ranks, world_.size());
    for (const int flavour : {0, 1, 2, 9}) {
      std::vector<std::vector<float>> wanted, read;
      const Tensors tensors(static_cast<std::uint64_t>(update));
      const auto n = tensors.elements();
      auto begin = cut(n, comm.rank(), comm.size(), flavour), end = cut(n, comm.rank() + 1, comm.size(), flavour);
      if (flavour == 9) begin = 0, end = n;  // everything on every rank
      tensors.slabs(begin, end, true, wanted);
      const auto state = from.load(comm, *found, tensors.slabs(begin, end, false, read));
      EXPECT_EQ(read, wanted);
      test::expect_equal(state, some_state(update, world_.size()));
    }
  }
  template <class Act>
  void root(Act act) {
    world_.barrier();  // others may still be dropping old sets
    if (world_.is_root()) act();
    world_.barrier();
  }
  std::string disk(int node) const { return fmt::format("{}/node{}", run(), node); }
  std::string part(const LocalSets& of, int node, int rank, std::int64_t update) const {
    const auto name = test::fs::path(of.folder()).filename().string();
    return fmt::format("{}/{}/update-{:08d}/rank-{:05d}", disk(node), name, update, rank);
  }
  const std::string& run() const { return scratch_.path(); }
  Communicator world_ = Communicator::world();
  test::Scratch scratch_{world_};
};

TEST_F(Local, SameBitsWhateverTheRanges) {
  const auto here = sets();
  EXPECT_EQ(here.find(world_), std::nullopt);
  for (const int flavour : {0, 1, 3}) {
    save(here, 10 + flavour, flavour);
    expect_loads(world_, here, 10 + flavour);
  }
  EXPECT_EQ(here.find(world_, 13), std::nullopt) << "nothing newer than that";
  expect_loads(world_, sets(), 13);  // the next start finds it
  // Two sets are kept.
  root([&] { EXPECT_FALSE(test::fs::exists(test::fs::path(part(here, 0, 0, 10)).parent_path())); });
}

TEST_F(Local, LosingAnyOneNodesDiskLosesNothing) {
  if (world_.size() == 1) GTEST_SKIP() << "one node has no partner";
  for (int lost = 0; lost < world_.size(); ++lost) {
    save(sets(), 5 + lost, lost % 3);
    root([&] { test::fs::remove_all(disk(lost)); });
    expect_loads(world_, sets(), 5 + lost);
  }
}

TEST_F(Local, LosingANodeAndItsPartnerIsNoticed) {
  if (world_.size() == 1) GTEST_SKIP() << "one node has no partner";
  save(sets(), 5);
  root([&] {
    test::fs::remove_all(disk(0));
    test::fs::remove_all(disk(1));
  });
  EXPECT_EQ(sets().find(world_), std::nullopt);
}

TEST_F(Local, NodesMayComeBackInAnotherOrder) {
  if (world_.size() == 1) GTEST_SKIP() << "one node";
  save(sets(), 5, 2);
  root([&] {
    test::fs::rename(disk(0), disk(99));
    test::fs::rename(disk(1), disk(0));
    test::fs::rename(disk(99), disk(1));
  });
  expect_loads(world_, sets(), 5);
}

TEST_F(Local, FewerRanksWhereTheNodesThatAreLeftHaveAllParts) {
  if (world_.size() == 1) GTEST_SKIP() << "one rank";
  setenv("SEER_RANKS_PER_NODE", std::to_string(world_.size() / 2).c_str(), 1);
  save(sets(), 5);
  const auto alone = world_.split(world_.rank());
  if (world_.is_root()) {
    const LocalSets here(alone, run(), {.folder = run() + "/node%n"});
    expect_loads(alone, here, 5);
  }
}

TEST_F(Local, ADamagedPartIsTakenFromItsCopy) {
  const auto here = sets();
  save(here, 5);
  save(here, 6);
  root([&] { test::flip_byte(part(here, 0, 0, 6) + ".bin", 77); });
  expect_loads(world_, here, world_.size() > 1 ? 6 : 5);
  const int last = world_.size() - 1;
  root([&] {
    if (last > 0) test::fs::resize_file(part(here, 0, last, 6) + ".bin", 11);
    test::flip_byte(part(here, 0, 0, 6) + ".json", 40);
  });
  expect_loads(world_, here, world_.size() > 1 ? 6 : 5);
  // Now both copies of one part are damaged: the set before it is used.
  if (world_.size() > 1) root([&] { test::flip_byte(part(here, 1, 0, 6) + ".bin", 5); });
  expect_loads(world_, here, 5);
}

TEST_F(Local, AWriteThatFailsLeavesEarlierSets) {
  const auto here = sets();
  save(here, 5);
  for (const int failing : {0, world_.size() - 1}) {
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto previous = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{world_.rank() == failing ? 1000 : before.rlim_cur, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const auto message = test::file_error([&] { save(here, 6); });
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, previous);
    EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
    world_.barrier();
    EXPECT_FALSE(test::fs::exists(part(here, world_.rank(), world_.rank(), 6) + ".json"));
    expect_loads(world_, here, 5);
  }
  save(here, 6);
  expect_loads(world_, here, 6);
}

TEST_F(Local, SetsOfARunBegunAnewAreNotTaken) {
  const auto before = sets();
  save(before, 5);
  const auto anew = sets(true);
  EXPECT_NE(anew.folder(), before.folder());
  EXPECT_EQ(anew.find(world_), std::nullopt);
  EXPECT_FALSE(test::fs::exists(before.folder())) << "nobody else will remove it";
}

TEST_F(Local, GoingOnFromAnEarlierOneDropsWhatIsNewer) {
  const auto here = sets();
  save(here, 5);
  save(here, 8);
  here.go_on_from(world_, 6);
  expect_loads(world_, here, 5);
}

TEST_F(Local, ACopyOfTheRunFolderHasSetsOfItsOwn) {
  const auto here = sets();
  save(here, 10);
  const auto copy = run() + ".copy";
  root([&] { test::fs::copy(run(), copy, test::fs::copy_options::recursive); });
  const LocalSets other(world_, copy, {.folder = run() + "/node%n"});
  EXPECT_FALSE(other.find(world_)) << "the first one's";
  other.go_on_from(world_, 0);
  save(other, 20);
  expect_loads(world_, sets(), 10);
  root([&] { test::fs::remove_all(copy); });
}

TEST_F(Local, NothingIsForgottenBeforeTheStartIsCertain) {
  save(sets(), 10);
  const LocalSets refused(world_, run(), {.folder = run() + "/node%n", .forget = true});
  EXPECT_FALSE(refused.find(world_));
  expect_loads(world_, sets(), 10);
}

TEST_F(Local, WrongWishesAreNamed) {
  const auto here = sets();
  save(here, 5);
  const auto found = here.find(world_);
  ASSERT_TRUE(found);
  std::vector<float> values(40);
  const auto other = checkpoint::Slab{"model", "scalar", {40}, values.data(), 0, 40};
  EXPECT_NE(test::file_error([&] { here.load(world_, *found, {other}); }).find("shape [1] of /model/scalar, wanted"),
            std::string::npos);
  const auto none = checkpoint::Slab{"model", "nothing", {40}, values.data(), 0, 40};
  EXPECT_NE(test::file_error([&] { here.load(world_, *found, {none}); }).find("not all of /model/nothing"),
            std::string::npos);
}

}  // namespace
}  // namespace seer
