// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/energy.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace seer::watch {
namespace {

namespace fs = std::filesystem;

// All ranks are on one node, and only one of them reads its counters.
TEST(Energy, ANodeCountsOnceForAllItsRanks) {
  const auto world = comm::Communicator::world();
  std::string folder = fs::path(testing::TempDir()) / ("seer_energy_" + std::to_string(getpid()));
  world.broadcast(folder);
  const auto set = [&](const char* file, std::int64_t value) {
    if (world.is_root()) std::ofstream(folder + "/intel-rapl:0/" + file) << value << "\n";
    world.barrier();
  };
  if (world.is_root()) {
    fs::create_directories(folder + "/intel-rapl:0");
    std::ofstream(folder + "/intel-rapl:0/name") << "package-0\n";
  }
  set("max_energy_range_uj", 10'000'000);
  set("energy_uj", 9'000'000);
  Energy energy(world, false, folder);
  EXPECT_EQ(energy.counted(), "processors and memory");
  set("energy_uj", 9'500'000);
  energy.tick();
  world.barrier();
  set("energy_uj", 500'000);
  const auto joules = energy.take_joules();
  ASSERT_TRUE(joules);
  EXPECT_NEAR(*joules, 1.5, 1e-9);
  EXPECT_NEAR(energy.take_joules().value_or(-1), 0, 1e-9);
  EXPECT_NEAR(images_per_wh(10, joules), 24000, 1e-6);

  EXPECT_EQ(Energy(world, true, folder).counted(), "processors and memory") << "no device is bound";
  Energy unknown(world, false, folder + "/none");
  EXPECT_EQ(unknown.counted(), "");
  EXPECT_FALSE(unknown.take_joules());
  EXPECT_EQ(images_per_wh(10, unknown.take_joules()), 0);
  world.barrier();
  if (world.is_root()) fs::remove_all(folder);
}

}  // namespace
}  // namespace seer::watch
