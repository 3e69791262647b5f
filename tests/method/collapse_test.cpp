// SPDX-License-Identifier: Apache-2.0
#include "seer/method/collapse.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace seer::method {
namespace {

config::Config config_of(std::int64_t prototypes, std::int64_t freeze) {
  config::Config c;
  c.head.prototypes = prototypes;
  c.swav.freeze_prototypes_updates = freeze;
  c.data.global_batch = 64;
  return c;
}

TEST(CollapseWatch, WarnsOnceWhenTheLossSitsAtLnK) {
  auto watch = swav_collapse(config_of(50, 10));
  int warnings = 0;
  std::int64_t at = 0;
  std::string text;
  for (std::int64_t u = 1; u <= 1000; ++u) {
    const double noise = 0.02 * std::sin(static_cast<double>(u));
    if (const auto w = watch.observe(u, std::log(50.0) + noise)) {
      ++warnings;
      at = u;
      text = *w;
    }
  }
  EXPECT_EQ(warnings, 1);
  EXPECT_EQ(at, 11 + CollapseWatch::kWindowUpdates);
  for (const char* part : {"collapse", "ln K = 3.9120", "head.prototypes = 50", "data.global_batch = 64",
                           "swav.queue_length", "swav.epsilon = 0.01 to 0.02 (now 0.05)",
                           "swav.freeze_prototypes_updates = 10", "schedule.lr_peak", "docs/watching.md"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
  }
}

TEST(CollapseWatch, DoesNotAdviseWhatIsAlreadySo) {
  auto config = config_of(50, 0);
  config.swav.epsilon = 0.01;
  config.swav.queue_length = 640;
  auto watch = swav_collapse(config);
  std::string text;
  for (std::int64_t u = 1; u <= 300; ++u) text += watch.observe(u, std::log(50.0)).value_or("");
  EXPECT_EQ(text.find("swav.epsilon"), std::string::npos) << text;
  EXPECT_NE(text.find("a longer queue (swav.queue_length = 640)"), std::string::npos) << text;
}

TEST(CollapseWatch, SilentWhilePrototypesAreFrozenAndJustInsideTheWindow) {
  auto watch = swav_collapse(config_of(128, 313));
  for (std::int64_t u = 1; u < 314 + CollapseWatch::kWindowUpdates; ++u) {
    ASSERT_FALSE(watch.observe(u, std::log(128.0))) << u;
  }
  EXPECT_TRUE(watch.observe(314 + CollapseWatch::kWindowUpdates, std::log(128.0)));
}

TEST(CollapseWatch, SilentForALossThatFalls) {
  auto watch = swav_collapse(config_of(50, 0));
  for (std::int64_t u = 1; u <= 2000; ++u) {
    const double loss = std::log(50.0) - 0.5 * (1 - std::exp(-static_cast<double>(u) / 300));
    ASSERT_FALSE(watch.observe(u, loss)) << u;
  }
}

TEST(CollapseWatch, JustOutsideOnePercentIsSilentJustInsideIsNot) {
  for (const double factor : {0.989, 1.011}) {
    auto watch = swav_collapse(config_of(50, 0));
    for (std::int64_t u = 1; u <= 500; ++u) ASSERT_FALSE(watch.observe(u, factor * std::log(50.0)));
  }
  for (const double factor : {0.991, 1.009}) {
    auto watch = swav_collapse(config_of(50, 0));
    bool warned = false;
    for (std::int64_t u = 1; u <= 500; ++u) warned |= watch.observe(u, factor * std::log(50.0)).has_value();
    EXPECT_TRUE(warned) << factor;
  }
}

TEST(CollapseWatch, WarnsAgainAfterTheLossLeftAndCameBack) {
  auto watch = swav_collapse(config_of(50, 0));
  int warnings = 0;
  for (std::int64_t u = 1; u <= 1500; ++u) {
    const double loss = u > 500 && u <= 700 ? 3.0 : std::log(50.0);
    warnings += watch.observe(u, loss) ? 1 : 0;
  }
  EXPECT_EQ(warnings, 2);
}

TEST(CollapseWatch, CountsUpdatesNotObservations) {
  auto watch = swav_collapse(config_of(50, 0));
  std::int64_t at = -1;
  for (std::int64_t u = 10; u <= 500 && at < 0; u += 10) {
    if (watch.observe(u, std::log(50.0))) at = u;
  }
  EXPECT_EQ(at, 10 + CollapseWatch::kWindowUpdates);
}

TEST(CollapseWatch, NonFiniteLossesAreLeftOut) {
  auto watch = swav_collapse(config_of(50, 0));
  watch.observe(1, 3.5);
  EXPECT_FALSE(watch.observe(2, std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(watch.observe(3, std::numeric_limits<double>::infinity()));
  EXPECT_DOUBLE_EQ(watch.smoothed_loss(), 3.5);
}

}  // namespace
}  // namespace seer::method
