// SPDX-License-Identifier: Apache-2.0
// From the launcher's environment to a device, with made-up environments.
#include "seer/device/binding.hpp"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::device {
namespace {

int rank_with(const std::map<std::string, std::string>& variables) {
  return local_rank([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

/// The message of the error that the action throws; "" if it throws none.
template <class Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_NE(error.remedy(), "");
    EXPECT_EQ(error.message().find('\n'), std::string::npos) << "one line";
    return error.message();
  }
  return "";
}

TEST(Binding, EveryLaunchersLocalRankIsRead) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                           "PMI_LOCAL_RANK", "SLURM_LOCALID"}) {
    const int rank = rank_with({{name, "3"}});
    EXPECT_EQ(rank, 3) << name;
    EXPECT_EQ(device_for(rank, 4), 3);
  }
}

TEST(Binding, MpirunInsideASlurmJobIsNotTakenForTheJobsScript) {
  // The script itself is local rank 0 of Slurm; its ranks inherit that.
  EXPECT_EQ(rank_with({{"SLURM_LOCALID", "0"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}}), 2);
  EXPECT_EQ(rank_with({{"SLURM_LOCALID", "0"}, {"MPI_LOCALRANKID", "1"}}), 1);
}

TEST(Binding, WithoutALauncherTheFirstDevice) {
  const int rank = rank_with({});
  EXPECT_EQ(rank, -1);
  EXPECT_EQ(device_for(rank, 1), 0);
  EXPECT_EQ(device_for(rank, 8), 0);
}

TEST(Binding, WhatIsNoNumberIsRefused) {
  for (const char* value : {"", "x", "1x", "-2", " 1"}) {
    const auto said = refusal([&] { rank_with({{"SLURM_LOCALID", value}}); });
    EXPECT_NE(said.find("SLURM_LOCALID=\"" + std::string(value) + "\""), std::string::npos) << said;
  }
}

TEST(Binding, RanksBeyondTheDevicesShareThem) {
  EXPECT_EQ(device_for(rank_with({{"SLURM_LOCALID", "3"}}), 4), 3);
  EXPECT_EQ(device_for(rank_with({{"SLURM_LOCALID", "4"}}), 4), 0);
  EXPECT_EQ(device_for(rank_with({{"SLURM_LOCALID", "2"}}), 1), 0) << "perhaps each rank sees another device";
}

TEST(Binding, NoVisibleDeviceIsRefused) {
  for (const int rank : {rank_with({}), rank_with({{"SLURM_LOCALID", "0"}})}) {
    EXPECT_NE(refusal([&] { device_for(rank, 0); }).find("no device is visible"), std::string::npos);
  }
}

TEST(Binding, TwoRanksOnOneDeviceAreSeen) {
  const std::vector<std::string> good = {"a 0000:1b:00.0 aa", "a 0000:1c:00.0 ab", "b 0000:1b:00.0 ac"};
  EXPECT_EQ(shared_device(good), "");
  const std::vector<std::string> bad = {"a 0000:1b:00.0 aa", "a 0000:1c:00.0 ab", "a 0000:1b:00.0 aa"};
  EXPECT_EQ(shared_device(bad), "ranks 0 and 2 share the device a 0000:1b:00.0 aa; every rank needs its own");
}

TEST(Binding, CodeRunsOnItsOwnGenerationAndThroughPtxOnLaterOnes) {
  EXPECT_TRUE(has_code_for("90", 90));
  EXPECT_TRUE(has_code_for("90", 100));  // PTX
  EXPECT_FALSE(has_code_for("90", 80));
  EXPECT_TRUE(has_code_for("80,90", 86));
  EXPECT_TRUE(has_code_for("80-real", 86));
  EXPECT_FALSE(has_code_for("80-real", 90));
  EXPECT_TRUE(has_code_for("80-real,90-real", 90));
  EXPECT_TRUE(has_code_for("80-virtual", 90));
  EXPECT_FALSE(has_code_for("86", 80));
  EXPECT_TRUE(has_code_for("90a", 90));
  EXPECT_FALSE(has_code_for("90a", 100));
  EXPECT_TRUE(has_code_for("100f", 103));
  EXPECT_FALSE(has_code_for("100f", 120));
  EXPECT_TRUE(has_code_for("native", 70));
  EXPECT_FALSE(has_code_for("", 90));
}

TEST(Binding, PairsAreSaidShortly) {
  EXPECT_EQ(pairs_line(8, [](int, int) { return true; }), "all of 8");
  EXPECT_EQ(pairs_line(4, [](int, int) { return false; }), "none of 4");
  EXPECT_EQ(pairs_line(4, [](int a, int b) { return a / 2 == b / 2; }), "0-1 2-3 of 4");
}

#if !defined(SEER_CUDA)
TEST(Binding, RanksThatShareADeviceComputeOnTheHostAlone) {
  const StandIn stand_in;
  EXPECT_EQ(chosen_space("auto"), Space::device);
  sharing() = "ranks 0 and 2 share the device x; every rank needs its own";
  for (const char* wanted : {"auto", "device"}) {
    const auto said = refusal([&] { chosen_space(wanted); });
    EXPECT_EQ(said.rfind("ranks 0 and 2 share the device x; every rank needs its own", 0), 0U) << said;
  }
  EXPECT_EQ(chosen_space("host"), Space::host);
  sharing() = "";
  EXPECT_EQ(chosen_space("device"), Space::device);
}

TEST(Binding, AHostBuildHasNone) {
  EXPECT_EQ(bind_device(), -1);
  EXPECT_EQ(bound_device(), -1);
  EXPECT_EQ(describe_device(), "");
}
#endif

}  // namespace
}  // namespace seer::device
