// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "seer/train/compute.hpp"

namespace seer::train {
namespace {

config::Config tiny(const char* compute) {
  config::Config config;
  config.model.preset = "tiny";
  config.precision.compute = compute;
  return config;
}

TEST(PrecisionSpeed, BothPrecisionsAreTimed) {
  const auto dnn = dnn::make_host_backend();
  if (!dnn->supports(DType::bf16)) GTEST_SKIP() << "no bf16 here";
  const auto trial = try_precisions(tiny("bf16"), *dnn, 0.01);
  EXPECT_GT(trial.single_ms, 0);
  EXPECT_GT(trial.half_ms, 0);
  EXPECT_LT(trial.single_ms, 1e6);
}

TEST(PrecisionSpeed, SlowerPrecisionIsReportedWithBothTimes) {
  const auto config = tiny("bf16");
  EXPECT_EQ(slower_text(config, {.single_ms = 10, .half_ms = 6}), "");
  EXPECT_EQ(slower_text(config, {.single_ms = 10, .half_ms = 10.2}), "") << "within the noise of the trial";
  const auto text = slower_text(config, {.single_ms = 7.06, .half_ms = 8.24});
  EXPECT_NE(text.find("precision.compute = \"bf16\" is slower than \"fp32\""), std::string::npos) << text;
  EXPECT_NE(text.find("8.2 ms instead of 7.1"), std::string::npos) << text;
}

}  // namespace
}  // namespace seer::train
