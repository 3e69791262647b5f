// SPDX-License-Identifier: Apache-2.0
// agree(): if one rank fails, all ranks throw the same error, marked as agreed, so that rank 0 may print it for all.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"

namespace seer::comm {
namespace {

TEST(AgreedError, LastRankFailsAndEveryRankThrowsItsError) {
  const auto world = Communicator::world();
  const int failing = world.size() - 1;
  try {
    agree(world, "reading", [&] {
      if (world.rank() == failing) throw Error(ExitCode::file, "found 3, wanted 4", "pack it again").at("src/a.cpp:1");
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_TRUE(e.agreed());
    EXPECT_EQ(e.code(), ExitCode::file);
    EXPECT_EQ(e.remedy(), "pack it again");
    EXPECT_EQ(e.where(), "src/a.cpp:1");
    const std::string who =
        world.size() == 1 ? "" : fmt::format(" (rank {}; 1 of {} ranks failed in: reading)", failing, world.size());
    EXPECT_EQ(std::string(e.what()), "found 3, wanted 4" + who);
  }
}

TEST(AgreedError, LowestOfSeveralFailingRanksSpeaksAndOtherExceptionsAreInternal) {
  const auto world = Communicator::world();
  try {
    agree(world, "reading", [&]() -> void { throw std::runtime_error(fmt::format("rank {}", world.rank())); });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_TRUE(e.agreed());
    EXPECT_EQ(e.code(), ExitCode::internal);
    EXPECT_STREQ(e.what(), "rank 0");
  }
}

TEST(AgreedError, NothingIsThrownWhereNothingFailed) {
  const auto world = Communicator::world();
  int ran = 0;
  EXPECT_NO_THROW(agree(world, "reading", [&] { ++ran; }));
  EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace seer::comm
