// SPDX-License-Identifier: Apache-2.0
#include "seer/base/clock.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace seer {
namespace {

TEST(Eta, LeavesTheFirstIntervalOut) {
  Eta eta(100);
  EXPECT_FALSE(eta.seconds_left());
  eta.done(10, 300);
  EXPECT_FALSE(eta.seconds_left());
  eta.done(10, 5);
  EXPECT_NEAR(*eta.seconds_left(), 40, 1e-9);
}

// Intervals alternate between 1 s and 0.2 s, and one takes 30 s. The speed stays within a tenth of the true one, and
// the long interval moves it by less than 60 %.
TEST(Eta, OneIntervalChangesLittle) {
  Eta eta(20000);
  double lowest = 1e30, highest = 0;
  for (int i = 0; i < 400; ++i) {
    eta.done(10, i % 2 == 0 ? 1 : 0.2);
    if (i < 20) continue;
    const double per_unit = *eta.seconds_left() / (20000 - 10.0 * (i + 1));
    lowest = std::min(lowest, per_unit), highest = std::max(highest, per_unit);
  }
  EXPECT_GT(lowest, 0.06 * 0.9);
  EXPECT_LT(highest, 0.06 * 1.1);
  eta.done(10, 30);
  EXPECT_LT(*eta.seconds_left() / (20000 - 4010.0), 0.06 * 1.6);
}

TEST(Eta, FollowsASpeedThatHasChanged) {
  Eta eta(1e6);
  for (int i = 0; i < 100; ++i) eta.done(1, 1);
  for (int i = 0; i < 300; ++i) eta.done(1, 3);
  EXPECT_NEAR(*eta.seconds_left() / (1e6 - 400), 3, 0.01);
}

// Intervals longer than the time constant are averaged as well.
TEST(Eta, LongIntervalsAreAveraged) {
  Eta eta(1000);
  for (int i = 0; i < 60; ++i) eta.done(1, i % 2 == 0 ? 1200 : 600);
  EXPECT_NEAR(*eta.seconds_left() / 940, 900, 60);
}

TEST(Eta, NothingLeft) {
  Eta eta(3);
  eta.done(3, 1);
  EXPECT_EQ(*eta.seconds_left(), 0);
}

TEST(Eta, DurationsForPeople) {
  EXPECT_EQ(duration_text(3e-8), "under 0.001 ms");
  EXPECT_EQ(duration_text(0.00024), "0.24 ms");
  EXPECT_EQ(duration_text(0.0351), "35 ms");
  EXPECT_EQ(duration_text(4.1), "4.1 s");
  EXPECT_EQ(duration_text(47), "47 s");
  EXPECT_EQ(duration_text(864), "14 minutes");
  EXPECT_EQ(duration_text(45470), "13 hours");
  EXPECT_EQ(duration_text(3 * 86400 + 3600), "3.0 days");
  EXPECT_EQ(duration_text(86400.0 * 130), "130 days");
}

}  // namespace
}  // namespace seer
