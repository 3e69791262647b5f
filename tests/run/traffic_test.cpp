// SPDX-License-Identifier: Apache-2.0
#include "seer/run/records.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace seer::run {
namespace {

using Use = TrafficLedger::Use;

TEST(TrafficLedger, GivesWhatWasCountedBetweenTwoClosesToItsUse) {
  std::vector<comm::Traffic> counters = {{"world", "broadcast", 4, 3, 300}};
  TrafficLedger ledger([&] { return counters; });
  ledger.close(Use::set_up);
  for (int round = 1; round <= 2; ++round) {
    counters = {{"shard", "reduce_scatter", 2, 10 * round, 4096 * round},
                {"world", "all_reduce", 4, 4 * round, 64 * round},
                {"world", "broadcast", 4, 2 + round, 200 + 100 * round}};
    ledger.close(Use::update);
    counters[2].calls += 1;
    counters[2].bytes += 100;
    ledger.close(Use::checkpoint);
  }
  const auto rows = ledger.rows();
  ASSERT_EQ(rows.size(), 4U);
  const auto expect = [&](std::size_t i, Use use, const char* name, const char* kind, int ranks, std::int64_t calls,
                          std::int64_t bytes) {
    EXPECT_EQ(rows[i].use, use) << i;
    EXPECT_EQ(rows[i].traffic.name, name) << i;
    EXPECT_STREQ(rows[i].traffic.kind, kind) << i;
    EXPECT_EQ(rows[i].traffic.group_size, ranks) << i;
    EXPECT_EQ(rows[i].traffic.calls, calls) << i;
    EXPECT_EQ(rows[i].traffic.bytes, bytes) << i;
  };
  expect(0, Use::set_up, "world", "broadcast", 4, 3, 300);
  expect(1, Use::update, "shard", "reduce_scatter", 2, 20, 8192);
  expect(2, Use::update, "world", "all_reduce", 4, 8, 128);
  expect(3, Use::checkpoint, "world", "broadcast", 4, 2, 200);

  const auto table = to_table(rows, 4);
  EXPECT_NE(table.find("mean of 4 updates"), std::string::npos) << table;
  EXPECT_NE(table.find("reduce_scatter        2      5.00       0.002"), std::string::npos) << table;
  EXPECT_EQ(table.find("broadcast"), std::string::npos) << "set-up and checkpoints are no part of it";
  EXPECT_EQ(to_table({rows[0], rows[3]}, 4), "");

  const auto json = nlohmann::json::parse(to_json(rows, 4, 2, 4));
  EXPECT_EQ(json["updates"], 4);
  EXPECT_EQ(json["logged_updates"], 2);
  EXPECT_EQ(json["ranks"], 4);
  ASSERT_EQ(json["traffic"].size(), 4U);
  EXPECT_EQ(json["traffic"][1]["use"], "update");
  EXPECT_EQ(json["traffic"][1]["bytes_per_update"], 2048.0);
  EXPECT_EQ(json["traffic"][1]["calls_per_update"], 5.0);
  EXPECT_EQ(json["traffic"][3]["use"], "checkpoint");
  EXPECT_FALSE(json["traffic"][3].contains("bytes_per_update"));
}

}  // namespace
}  // namespace seer::run
