// SPDX-License-Identifier: Apache-2.0
// What a plan recommends: a precision, ranks and threads.
#include <gtest/gtest.h>

#include "seer/nn/architecture.hpp"
#include "seer/plan/plan.hpp"

namespace seer::plan {
namespace {

config::Machine file(const char* name) {
  return config::load_machine(std::string(SEER_SOURCE_DIR) + "/inputs/machines/" + name);
}

TEST(PrecisionFor, Bf16NeedsMatrixUnitsAndRates) {
  EXPECT_EQ(precision_for(file("dgx_h100.toml")), "bf16");
  EXPECT_EQ(precision_for(file("dgx_a100.toml")), "bf16");
  EXPECT_EQ(precision_for(file("dgx1_v100.toml")), "fp32") << "fp16_o1 is never chosen";
  auto host = file("host_2core.toml");
  EXPECT_EQ(precision_for(host), "fp32") << "bf16 instructions, but no matrix units";
  host.bf16 = 6 * host.fp32;
  EXPECT_EQ(precision_for(host), "bf16");
  std::erase_if(host.rates, [](const auto& rate) { return rate.precision == "bf16"; });
  EXPECT_EQ(precision_for(host), "fp32") << "it could not be planned";
}

config::Config job() {
  config::Config c;
  c.model.preset = "tiny";
  c.head.dims = {nn::architecture(c.model).back().width, 32, 16};
  c.head.prototypes = 24;
  c.crops = {{2, 64, {0.3, 1.0}}, {2, 32, {0.1, 0.3}}};
  c.data.global_batch = 96;
  c.data.source = "crops";
  return c;
}

TEST(Splits, DivideTheCoresOfANodeInEveryWay) {
  auto m = file("host_2core.toml");
  m.ranks_per_node = 4;
  const auto all = splits(job(), m, {.ranks = 8, .ranks_per_node = 4});  // two nodes
  ASSERT_EQ(all.size(), 3U);
  for (const auto& s : all) EXPECT_EQ(s.ranks * s.threads, 8);
  EXPECT_EQ(all[1].ranks_per_node, 2);
  const auto same = predict(job(), m, {.ranks = 8, .ranks_per_node = 4});
  EXPECT_DOUBLE_EQ(all[0].step_s, same.step_s) << "as the machine file has it";
  EXPECT_EQ(all[0].rank_bytes, same.memory.footprint.total());
  EXPECT_GT(all[2].rank_bytes, all[0].rank_bytes) << "four times the images";
  EXPECT_LT(all[2].rank_bytes, 4 * all[0].rank_bytes) << "parameters are there once, not four times";
  m.passes_lost = 0;
  EXPECT_LT(splits(job(), m, {.ranks = 8, .ranks_per_node = 4})[2].step_s, all[2].step_s);
  m.passes_lost = m.threads_lost = 1;  // threads are of no use
  EXPECT_GT(splits(job(), m, {.ranks = 8, .ranks_per_node = 4})[2].step_s, 1.4 * all[2].step_s);
}

TEST(Splits, TellWhatCannotRun) {
  auto m = file("host_2core.toml");
  m.ranks_per_node = 4;
  auto c = job();
  c.data.global_batch = 98;  // 2 and 1 divide it
  const auto odd = splits(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_NE(odd.at(0).refused, "");
  EXPECT_EQ(odd.at(1).refused, "");
  c.data.global_batch = 96;
  c.parallel.bn_group_size = 1;
  const auto groups = splits(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_EQ(groups.at(0).note, "");
  EXPECT_EQ(groups.at(2).note, "BatchNorm over 96 images, not 24");
  m.rank_bytes = m.reserved_bytes + 1;
  for (const auto& s : splits(c, m, {.ranks = 4, .ranks_per_node = 4})) EXPECT_NE(s.refused, "");
  EXPECT_TRUE(splits(c, m, {.ranks = 3, .ranks_per_node = 3}).empty()) << "a node that is not full";
  EXPECT_TRUE(splits(c, file("dgx_h100.toml"), {.ranks = 8, .ranks_per_node = 8}).empty());
}

TEST(Splits, TheBestIsNamedWithItsNeighbours) {
  Report r;
  r.nodes = 1;
  r.splits = {{.ranks = 4, .ranks_per_node = 4, .threads = 1, .step_s = 2, .rank_bytes = 1 << 30},
              {.ranks = 2, .ranks_per_node = 2, .threads = 2, .step_s = 1.5, .rank_bytes = 1 << 30},
              {.ranks = 1, .ranks_per_node = 1, .threads = 4, .step_s = 1, .refused = "it does not fit"}};
  const auto text = to_text(r, {}, file("host_2core.toml"));
  EXPECT_NE(text.find("ranks and threads: best 2 ranks of 2 threads on a node, 1.5 s an update; 4 ranks of 1 thread on "
                      "a node, 2.0 s an update\n"),
            std::string::npos)
      << text;
  const auto table = to_splits(r);
  EXPECT_NE(table.find("       4        1       2000.00       1.000\n"), std::string::npos) << table;
  EXPECT_NE(table.find("  no: it does not fit\n"), std::string::npos) << table;
  for (auto& s : r.splits) s.refused = "it does not fit";
  EXPECT_EQ(to_text(r, {}, file("host_2core.toml")).find("ranks and threads"), std::string::npos);
}

}  // namespace
}  // namespace seer::plan
