// SPDX-License-Identifier: Apache-2.0
// Checkpoints written and read by all ranks of the test, and by parts of them.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <functional>

#include "../failing_writes.hpp"
#include "../scratch.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/h5/file.hpp"

namespace seer {
namespace {

using checkpoint::Slab;
using comm::Communicator;
using test::cut;
using test::Scratch;
using test::some_state;
using test::Tensors;

std::string save(const Communicator& comm, const std::string& run, std::int64_t update, int flavour) {
  std::vector<std::vector<float>> store;
  const Tensors tensors(static_cast<std::uint64_t>(update));
  const auto n = tensors.elements();
  const auto slabs = tensors.slabs(cut(n, comm.rank(), comm.size(), flavour),
                                   cut(n, comm.rank() + 1, comm.size(), flavour), true, store);
  return checkpoint::save(comm, run, slabs, some_state(update, comm.size()));
}

// Loads with the given cuts and compares every bit.
void expect_loads(const Communicator& comm, const std::string& folder, std::int64_t update, int flavour, int saved_on) {
  std::vector<std::vector<float>> wanted, found;
  const Tensors tensors(static_cast<std::uint64_t>(update));
  const auto n = tensors.elements();
  auto begin = cut(n, comm.rank(), comm.size(), flavour), end = cut(n, comm.rank() + 1, comm.size(), flavour);
  if (flavour == 9) begin = 0, end = n;  // everything on every rank
  tensors.slabs(begin, end, true, wanted);
  const auto slabs = tensors.slabs(begin, end, false, found);
  const auto state = checkpoint::load(comm, folder, slabs);
  EXPECT_EQ(found, wanted);
  test::expect_equal(state, some_state(update, saved_on));
}

class Saved : public testing::Test {
 protected:
  void TearDown() override { world_.barrier(); }  // the folder goes when all are done with it
  Communicator world_ = Communicator::world();
  Scratch scratch_{world_};
  const std::string& run() const { return scratch_.path(); }
  std::string checkpoints() const { return run() + "/checkpoints"; }
  // Root does something to the files between two collective calls.
  template <class Act>
  void root(Act act) {
    if (world_.is_root()) act();
    world_.barrier();
  }
  std::vector<std::string> entries() {
    std::vector<std::string> names;
    for (const auto& e : test::fs::directory_iterator(checkpoints())) names.push_back(e.path().filename());
    std::sort(names.begin(), names.end());
    world_.barrier();
    return names;
  }
};

TEST_F(Saved, SameBitsWhateverTheRangesAndTheRanks) {
  for (const int flavour : {0, 1, 3}) {
    const auto folder = save(world_, run(), 7 + flavour, flavour);
    EXPECT_EQ(folder, checkpoints() + (flavour == 0   ? "/update-00000007"
                                       : flavour == 1 ? "/update-00000008"
                                                      : "/update-00000010"));
    for (const int other : {0, 1, 2, 9}) expect_loads(world_, folder, 7 + flavour, other, world_.size());
    // Fewer ranks: each half, each rank alone.
    for (const int parts : {2, 4}) {
      if (world_.size() % parts != 0) continue;
      const auto part = world_.split(world_.rank() / (world_.size() / parts));
      expect_loads(part, folder, 7 + flavour, 2, world_.size());
    }
    world_.barrier();
  }
  EXPECT_EQ(checkpoint::find_latest(run()), checkpoints() + "/update-00000010");
  EXPECT_EQ(checkpoint::find_valid(world_, run()), checkpoints() + "/update-00000010");
}

TEST_F(Saved, OnOneRankLoadedOnAll) {
  const auto alone = world_.split(world_.rank());
  std::string folder;
  if (world_.is_root()) folder = save(alone, run(), 5, 0);
  world_.broadcast(folder);
  expect_loads(world_, folder, 5, 0, 1);
  EXPECT_EQ(checkpoint::verify(folder), "");
}

TEST_F(Saved, SlabsAreWholePlainTensors) {
  const auto folder = save(world_, run(), 1, 0);
  root([&] {
    const auto file = h5::File::open(folder + "/state.h5");
    EXPECT_EQ(file.get_string("/", "format"), "seer-checkpoint");
    EXPECT_EQ(file.get_int("/", "version"), 1);
    EXPECT_EQ(file.list("/"), (std::vector<std::string>{"buffers", "model", "momentum", "state"}));
    const auto d = file.describe("/momentum/big");
    EXPECT_TRUE(d.plain);
    EXPECT_EQ(d.dims, (h5::Dims{5, 7, 11, 13}));
    EXPECT_EQ(file.read_all<float>("/momentum/big", h5::Type::f32), test::hash_fill(5 * 7 * 11 * 13, 1 + 4, 1));
    EXPECT_EQ(file.get_int("/state", "update"), 1);
  });
}

TEST_F(Saved, DamageIsNamedAndTheOneBeforeIsUsed) {
  const auto first = save(world_, run(), 1, 0);
  const auto second = save(world_, run(), 2, 0);
  const auto manifest = checkpoint::read_manifest(second);
  const auto* big = manifest.find("momentum", "big");
  ASSERT_NE(big, nullptr);
  world_.barrier();
  root([&] { test::flip_byte(second + "/state.h5", big->offset_bytes + 1234); });
  const std::string problem = checkpoint::verify(second);
  EXPECT_NE(problem.find("state.h5: /momentum/big, elements"), std::string::npos) << problem;
  const auto message = test::file_error([&] { expect_loads(world_, second, 2, 0, world_.size()); });
  EXPECT_NE(message.find("/momentum/big"), std::string::npos) << message;
  EXPECT_EQ(checkpoint::find_latest(run()), second) << "the cheap look reads no data";
  EXPECT_EQ(checkpoint::find_valid(world_, run()), first);
  expect_loads(world_, first, 1, 0, world_.size());
}

TEST_F(Saved, AnyFlippedByteIsFound) {
  const auto folder = save(world_, run(), 3, 0);
  const auto bytes = test::fs::file_size(folder + "/state.h5"),
             manifest_bytes = test::fs::file_size(folder + "/manifest.json");
  world_.barrier();
  // 61 places: the file's head with HDF5's own structures densely, then spread over all of it; and the manifest.
  for (std::uint64_t i = 0; i < 61; ++i) {
    const auto at = i < 20 ? i * 97 : bytes * i / 61;
    root([&] { test::flip_byte(folder + "/state.h5", at); });
    EXPECT_NE(checkpoint::verify(folder), "") << "byte " << at;
    world_.barrier();
    if (i % 20 == 0) test::file_error([&] { expect_loads(world_, folder, 3, 0, world_.size()); });
    root([&] { test::flip_byte(folder + "/state.h5", at); });
  }
  for (std::uint64_t i = 0; i < 23; ++i) {
    const auto at = manifest_bytes * i / 23;
    root([&] { test::flip_byte(folder + "/manifest.json", at); });
    std::string text;
    if (world_.is_root()) text = checkpoint::verify(folder);
    world_.broadcast(text);
    // Spaces between JSON's words are the only bytes that mean nothing, and 0x20 ^ 0x10 is no space.
    EXPECT_NE(text, "") << "manifest byte " << at;
    root([&] { test::flip_byte(folder + "/manifest.json", at); });
  }
  EXPECT_EQ(checkpoint::verify(folder), "");
}

TEST_F(Saved, IncompleteOnesAreNoCheckpoints) {
  EXPECT_EQ(checkpoint::find_latest(run()), std::nullopt) << "no folder yet";
  EXPECT_EQ(checkpoint::find_valid(world_, run()), std::nullopt);
  const auto first = save(world_, run(), 1, 0);
  const auto cut_short = save(world_, run(), 2, 0);
  const auto no_manifest = save(world_, run(), 3, 0);
  const auto misnamed = checkpoints() + "/update-00000004";
  root([&] {
    test::fs::resize_file(cut_short + "/state.h5", test::fs::file_size(cut_short + "/state.h5") - 1);
    test::fs::remove(no_manifest + "/manifest.json");
    test::fs::copy(first, misnamed);
    test::fs::create_directory(checkpoints() + "/update-00000005");
    test::fs::create_directories(checkpoints() + "/.tmp-update-00000006");
    test::fs::create_directory(checkpoints() + "/update-9");
  });
  EXPECT_EQ(checkpoint::find_latest(run()), first);
  EXPECT_EQ(checkpoint::find_valid(world_, run()), first);
  EXPECT_NE(test::file_error([&] { expect_loads(world_, cut_short, 2, 0, world_.size()); }).find("its manifest says"),
            std::string::npos);
  test::file_error([&] { expect_loads(world_, no_manifest, 3, 0, world_.size()); });
  const auto text = test::file_error([&] { expect_loads(world_, misnamed, 1, 0, world_.size()); });
  EXPECT_NE(text.find("says that it is of update 1"), std::string::npos) << text;
  root([&] { test::fs::remove(first + "/state.h5"); });
  // Only damaged ones left: starting afresh beside them would be a silent loss.
  const auto all = test::file_error([&] { checkpoint::find_valid(world_, run()); });
  EXPECT_NE(all.find("all 5 are damaged or incomplete"), std::string::npos) << all;
}

TEST_F(Saved, EveryKindOfDamageToEveryFileIsNamedAndTheOneBeforeIsUsed) {
  const auto first = save(world_, run(), 1, 0);
  const auto second = checkpoints() + "/update-00000002";
  const auto state = second + "/state.h5", manifest = second + "/manifest.json";
  const auto cut_to = [](const std::string& path, double part) {
    test::fs::resize_file(path, static_cast<std::uintmax_t>(static_cast<double>(test::fs::file_size(path)) * part));
  };
  const auto replace_by_folder = [](const std::string& path) {
    test::fs::remove_all(path);
    test::fs::create_directory(path);
  };
  const auto overwrite = [](const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  };
  const auto last = [](const std::string& path) { return test::fs::file_size(path) - 1; };
  const std::vector<std::pair<const char*, std::function<void()>>> kinds = {
      {"state.h5: header", [&] { test::flip_byte(state, 3); }},
      {"state.h5: middle", [&] { test::flip_byte(state, last(state) / 2); }},
      {"state.h5: last byte", [&] { test::flip_byte(state, last(state)); }},
      {"state.h5: empty", [&] { cut_to(state, 0); }},
      {"state.h5: half", [&] { cut_to(state, 0.5); }},
      {"state.h5: longer", [&] { std::ofstream(state, std::ios::app) << "more"; }},
      {"state.h5: zeros", [&] { overwrite(state, std::string(test::fs::file_size(state), '\0')); }},
      {"state.h5: gone", [&] { test::fs::remove(state); }},
      {"state.h5: a folder", [&] { replace_by_folder(state); }},
      {"state.h5: a link to nowhere", [&] { test::fs::remove(state), test::fs::create_symlink("nowhere", state); }},
      {"manifest: flipped", [&] { test::flip_byte(manifest, last(manifest) / 2); }},
      {"manifest: half", [&] { cut_to(manifest, 0.5); }},
      {"manifest: empty", [&] { cut_to(manifest, 0); }},
      {"manifest: gone", [&] { test::fs::remove(manifest); }},
      {"manifest: more", [&] { std::ofstream(manifest, std::ios::app) << "{}"; }},
      {"manifest: deep", [&] { overwrite(manifest, std::string(100000, '[')); }},
      {"manifest: no object", [&] { overwrite(manifest, "[1, 2, \"xxh3\"]"); }},
      {"manifest: of another",
       [&] { test::fs::copy_file(first + "/manifest.json", manifest, test::fs::copy_options::overwrite_existing); }},
      {"manifest: a folder", [&] { replace_by_folder(manifest); }},
      {"folder: empty", [&] { test::fs::remove(state), test::fs::remove(manifest); }},
      {"folder: a file", [&] { test::fs::remove_all(second), overwrite(second, "no folder"); }},
      {"folder: a link to nowhere", [&] { test::fs::remove_all(second), test::fs::create_symlink("nowhere", second); }},
  };
  for (const auto& [what, damage] : kinds) {
    root([&] { test::fs::remove_all(second); });
    save(world_, run(), 2, 0);
    ASSERT_EQ(checkpoint::find_valid(world_, run()), second) << what;
    root(damage);
    EXPECT_NE(checkpoint::verify(second), "") << what;
    EXPECT_EQ(checkpoint::find_valid(world_, run()), first) << what;
    world_.barrier();
    bool named = !world_.is_root();
    for (const auto& warning : log::warnings()) named = named || warning.find(second + " is not used") != warning.npos;
    EXPECT_TRUE(named) << what;
    // If it is the only checkpoint, the start is refused.
    root([&] { test::fs::rename(first, run() + "/aside"); });
    const auto text = test::file_error([&] { checkpoint::find_valid(world_, run()); });
    EXPECT_NE(text.find("no checkpoint in "), std::string::npos) << what << ": " << text;
    test::file_error([&] { expect_loads(world_, second, 2, 0, world_.size()); });
    root([&] { test::fs::rename(run() + "/aside", first); });
  }
  expect_loads(world_, first, 1, 0, world_.size());
  // Other files beside the two do not matter.
  root([&] { std::ofstream(first + "/notes.txt") << "mine"; });
  root([&] { test::fs::remove_all(second); });
  EXPECT_EQ(checkpoint::find_valid(world_, run()), first);
}

TEST_F(Saved, AFolderOfCheckpointsThatCannotBeReadIsNotTakenForNone) {
  root([&] { std::ofstream(checkpoints()) << "no folder"; });
  const auto text = test::file_error([&] { checkpoint::find_valid(world_, run()); });
  EXPECT_NE(text.find("cannot look for checkpoints in"), std::string::npos) << text;
  root([&] { checkpoint::retain(run(), 1, 0); });  // a warning
}

TEST_F(Saved, WhatReadsBackDifferentlyIsDiscarded) {
  const auto first = save(world_, run(), 1, 0);
  checkpoint::verify_or_discard(world_, first);
  const auto second = save(world_, run(), 2, 0);
  root([&] { test::flip_byte(second + "/state.h5", test::fs::file_size(second + "/state.h5") / 2); });
  const auto text = test::file_error([&] { checkpoint::verify_or_discard(world_, second); });
  EXPECT_NE(text.find("reads back differently: " + second), std::string::npos) << text;
  world_.barrier();
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000001"});
}

TEST_F(Saved, StaleTemporariesGoAndTheSameUpdateIsReplaced) {
  save(world_, run(), 1, 0);
  root([&] {
    test::fs::create_directories(checkpoints() + "/.tmp-update-00000009/deep");
    test::fs::create_directories(checkpoints() + "/.del-update-00000000");
  });
  std::vector<std::vector<float>> store;
  const Tensors others(1000);
  const auto n = others.elements();
  const auto slabs =
      others.slabs(cut(n, world_.rank(), world_.size(), 0), cut(n, world_.rank() + 1, world_.size(), 0), true, store);
  const auto folder = checkpoint::save(world_, run(), slabs, some_state(1, world_.size()));
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000001"});
  std::vector<std::vector<float>> wanted, found;
  others.slabs(0, n, true, wanted);
  checkpoint::load(world_, folder, others.slabs(0, n, false, found));
  EXPECT_EQ(found, wanted);
  // A run that ended between the two renames of a replacement: the earlier one comes back.
  root([&] { test::fs::rename(folder, checkpoints() + "/.old-update-00000001"); });
  EXPECT_EQ(checkpoint::find_valid(world_, run()), folder);
  EXPECT_EQ(entries(), std::vector<std::string>{"update-00000001"});
}

TEST_F(Saved, WriteErrorsLeaveEarlierOnesAndTheRunGoesOn) {
  const auto first = save(world_, run(), 1, 0);
  for (const int failing : {world_.size() - 1, 0}) {
    for (const int call : {1, 2}) {
      if (world_.rank() == failing) test::failing_write = call;
      const auto message = test::file_error([&] { save(world_, run(), 2, 0); });
      test::failing_write = 0;
      for (const auto& m : world_.all_gather(message)) EXPECT_EQ(m, message) << "all ranks throw the same";
      EXPECT_NE(message.find(".tmp-update-00000002/state.h5: No space left on device"), std::string::npos) << message;
      world_.barrier();
      EXPECT_EQ(entries(), std::vector<std::string>{"update-00000001"}) << message;
    }
  }
  expect_loads(world_, first, 1, 0, world_.size());
  const auto second = save(world_, run(), 2, 0);
  expect_loads(world_, second, 2, 0, world_.size());
}

TEST_F(Saved, ALimitOnFileSizesIsFoundBeforeAnythingIsWritten) {
  const auto first = save(world_, run(), 1, 0);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{3000}, rlim_t{30000}}) {
    const auto previous = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const auto message = test::file_error([&] { save(world_, run(), 2, 0); });
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, previous);
    EXPECT_NE(message.find("ulimit -f"), std::string::npos) << message;
    EXPECT_EQ(entries(), std::vector<std::string>{"update-00000001"});
  }
  expect_loads(world_, first, 1, 0, world_.size());
}

TEST_F(Saved, WrongWishesAreNamed) {
  const auto folder = save(world_, run(), 1, 0);
  std::vector<float> values(32 * 27);
  auto slab = Slab{"model", "stem.0.weight", {32, 27}, values.data(), 0, 32 * 27};
  auto text = test::file_error([&] { checkpoint::load(world_, folder, {slab}); });
  EXPECT_NE(text.find("/model/stem.0.weight has shape [32, 3, 3, 3], wanted shape [32, 27]"), std::string::npos)
      << text;
  slab.name = "stem.9.weight";
  text = test::file_error([&] { checkpoint::load(world_, folder, {slab}); });
  EXPECT_NE(text.find("/model/stem.9.weight is missing, wanted shape [32, 27]"), std::string::npos) << text;
}

TEST_F(Saved, RangesMustCoverEveryTensorOnce) {
  std::vector<float> values(10);
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 9}, {1, 10}}) {
    const Slab gap{"model", "a", {10}, values.data(), world_.is_root() ? begin : 0, world_.is_root() ? end : 0};
    EXPECT_THROW(checkpoint::save(world_, run(), {gap}, some_state(1, 1)), Error);
  }
  if (world_.size() > 1) {
    const Slab everywhere{"model", "a", {10}, values.data(), 0, 10};
    EXPECT_THROW(checkpoint::save(world_, run(), {everywhere}, some_state(1, 1)), Error);
  }
  EXPECT_EQ(checkpoint::find_latest(run()), std::nullopt);
}

TEST_F(Saved, RetentionKeepsTheNewestAndTheMilestones) {
  for (const std::int64_t update : {10, 20, 25, 30, 31, 32}) save(world_, run(), update, 0);
  root([&] {
    test::fs::create_directory(checkpoints() + "/update-00000033");
    checkpoint::retain(run(), 2, 10);
  });
  const std::vector<std::string> left = {"update-00000010", "update-00000020", "update-00000030",
                                         "update-00000031", "update-00000032", "update-00000033"};
  EXPECT_EQ(entries(), left);
  root([&] { checkpoint::retain(run(), 0, 0, 20); });
  EXPECT_EQ(entries(), (std::vector<std::string>{"update-00000020", "update-00000032", "update-00000033"}))
      << "the best is kept";
  root([&] { checkpoint::retain(run(), 0, 0); });
  EXPECT_EQ(entries(), (std::vector<std::string>{"update-00000032", "update-00000033"})) << "one is always kept";
}

TEST_F(Saved, RehearsalLeavesNothingAndFindsAnUnwritableFolder) {
  checkpoint::rehearse(world_, run());
  root([&] { EXPECT_TRUE(test::fs::is_empty(run())); });
  root([&] { std::ofstream(run() + "/file") << "x"; });
  const auto text = test::file_error([&] { checkpoint::rehearse(world_, run() + "/file"); });
  EXPECT_NE(text.find("rehearsal of a checkpoint failed"), std::string::npos) << text;
}

}  // namespace
}  // namespace seer
