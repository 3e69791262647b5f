// SPDX-License-Identifier: Apache-2.0
// The keys of [watch] that depend on each other.
#include <gtest/gtest.h>

#include "seer/base/error.hpp"
#include "seer/config/config.hpp"

namespace seer::config {
namespace {

void expect_contains(const std::string& text, const std::string& piece) {
  EXPECT_NE(text.find(piece), std::string::npos) << text;
}
std::string refusal(const std::string& toml) {
  try {
    parse(toml, "run.toml", {});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.message();
  }
  return "not refused";
}

TEST(WatchKeys, AnIntervalThatFollowsFromTheCostHasNoPatience) {
  const auto config = parse("[watch]\nevery = \"auto\"\n", "run.toml", {});
  EXPECT_EQ(config.watch.every, kWatchByCost);
  expect_contains(to_toml(config), "[watch]\nevery = \"auto\"\n");
  EXPECT_EQ(parse(to_toml(config), "again.toml", {}), config);
  expect_contains(to_toml(parse("", "run.toml", {})), "[watch]\nevery = 0\n");
  expect_contains(refusal("[watch]\nevery = -1\n"), "watch.every: found -1, allowed an integer >= 0 or \"auto\"");
  expect_contains(refusal("[watch]\nevery = \"auto\"\npatience = 2\n"),
                  "run.toml:3: watch.patience: found 2 beside watch.every = \"auto\"");
  EXPECT_EQ(parse("[watch]\nevery = 10\npatience = 2\n", "run.toml", {}).watch.patience, 2);
}

}  // namespace
}  // namespace seer::config
