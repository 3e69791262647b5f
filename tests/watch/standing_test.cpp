// SPDX-License-Identifier: Apache-2.0
// The verdict on a hang: finds the rank that holds up the others, from what each rank reports about itself.
#include "../../src/watch/standing.hpp"

#include <gtest/gtest.h>

namespace seer::watch {
namespace {

Standing::Use use(std::vector<int> members, std::int64_t entered, std::int64_t left,
                  const std::string& name = "world") {
  Standing::Use u;
  u.name = name;
  u.members = std::move(members);
  u.entered = entered;
  u.left = left;
  u.kind = "all_reduce";
  u.bytes = 40;
  return u;
}

Standing standing(int rank, std::vector<Standing::Use> uses, double silent_s = 9) {
  Standing s;
  s.question = "q";
  s.rank = rank;
  s.host = "node" + std::to_string(rank);
  s.update = 17;
  s.phase = "data wait";
  s.silent_s = silent_s;
  s.limit_s = 3;
  s.uses = std::move(uses);
  return s;
}

std::vector<std::string> hosts(std::size_t n) {
  std::vector<std::string> out;
  for (std::size_t r = 0; r < n; ++r) out.push_back("node" + std::to_string(r));
  return out;
}

bool has(const std::string& text, const std::string& piece) {
  return text.find(piece) != std::string::npos;
}

TEST(Standing, SurvivesItsText) {
  auto before = standing(3, {use({0, 1, 2, 5}, 120, 119), use({3}, 7, 7, "bn")});
  before.reading = "shards/a b.h5";
  const auto after = parse_standing(to_text(before) + "\nlast collectives:\n  whatever\n");
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->question, "q");
  EXPECT_EQ(after->rank, 3);
  EXPECT_EQ(after->host, "node3");
  EXPECT_EQ(after->update, 17);
  EXPECT_EQ(after->phase, "data wait");
  EXPECT_EQ(after->reading, "shards/a b.h5");
  EXPECT_DOUBLE_EQ(after->silent_s, 9);
  ASSERT_EQ(after->uses.size(), 2U);
  EXPECT_TRUE(after->uses[0].same(before.uses[0]));
  EXPECT_EQ(after->uses[0].entered, 120);
  EXPECT_EQ(after->uses[0].left, 119);
  EXPECT_EQ(after->uses[0].bytes, 40);
  EXPECT_EQ(after->uses[1].kind, "all_reduce");
}

TEST(Standing, ATextThatIsCutIsNoAnswer) {
  const auto text = to_text(standing(3, {use({0, 1}, 120, 119)}));
  for (std::size_t length = 0; length + 4 < text.size(); length += 7) {
    EXPECT_FALSE(parse_standing(text.substr(0, length)).has_value()) << length;
  }
  EXPECT_FALSE(parse_standing("question q\nrank many\nend\n").has_value());
}

TEST(Standing, RangesOfRanks) {
  EXPECT_EQ(ranges({0, 1, 2, 5}), "0-2,5");
  EXPECT_EQ(ranges({4}), "4");
  EXPECT_EQ(ranges({}), "");
}

TEST(Verdict, NamesTheRankThatDoesNotAnswerAndWhatWaitsForIt) {
  const auto all = use({0, 1, 2, 3}, 120, 119);
  const auto verdict = judge({standing(0, {all}), standing(1, {all}), std::nullopt, standing(3, {all})}, hosts(4));
  EXPECT_TRUE(verdict.hang);
  EXPECT_TRUE(has(verdict.what, "rank 2 on node2 does not answer")) << verdict.what;
  EXPECT_TRUE(has(verdict.what, "ranks 0-1,3 wait in all_reduce 120 of \"world\"")) << verdict.what;
}

TEST(Verdict, NamesTheRankThatHasNotEntered) {
  const auto inside = use({0, 1, 2}, 120, 119), behind = use({0, 1, 2}, 119, 119);
  auto late = standing(1, {behind});
  late.reading = "shards/a.h5";
  const auto verdict = judge({standing(0, {inside}), late, standing(2, {inside})}, hosts(3));
  EXPECT_TRUE(verdict.hang);
  EXPECT_TRUE(has(verdict.what, "rank 1 has not entered all_reduce 120 of \"world\"")) << verdict.what;
  EXPECT_TRUE(has(verdict.what, "ranks 0,2 wait for")) << verdict.what;
  EXPECT_TRUE(has(verdict.what, "rank 1 on node1: update 17, data wait, reading shards/a.h5")) << verdict.what;
}

TEST(Verdict, OfAChainTheFirstLinkIsNamed) {
  // 0 waits for 1 in the world, 1 waits for 2 in its group, 2 waits for nobody.
  const auto world_in = use({0, 1}, 50, 49, "a"), world_out = use({0, 1}, 49, 49, "a");
  const auto group_in = use({1, 2}, 8, 7, "b"), group_out = use({1, 2}, 7, 7, "b");
  const auto verdict =
      judge({standing(0, {world_in}), standing(1, {world_out, group_in}), standing(2, {group_out})}, hosts(3));
  EXPECT_TRUE(has(verdict.what, "rank 2 has not entered all_reduce 8 of \"b\"")) << verdict.what;
}

TEST(Verdict, ASlowRankIsNoHang) {
  const auto inside = use({0, 1}, 120, 119), behind = use({0, 1}, 119, 119);
  const auto verdict = judge({standing(0, {inside}), standing(1, {behind}, /*silent_s=*/0.5)}, hosts(2));
  EXPECT_FALSE(verdict.hang);
  EXPECT_TRUE(has(verdict.what, "one rank is slow, still at work: rank 1 on node1")) << verdict.what;
  auto unlimited = standing(1, {behind});
  unlimited.limit_s = 0;
  EXPECT_FALSE(judge({standing(0, {inside}), unlimited}, hosts(2)).hang);
}

TEST(Verdict, AnotherCollectiveUnderTheSameNumber) {
  auto other = use({0, 1}, 120, 119);
  other.kind = "broadcast";
  other.bytes = 8;
  const auto verdict = judge({standing(0, {use({0, 1}, 120, 119)}), standing(1, {other})}, hosts(2));
  EXPECT_TRUE(verdict.hang);
  EXPECT_TRUE(has(verdict.what,
                  "ranks disagree on collective 120 of \"world\": rank 0 is in all_reduce of 40 bytes, rank "
                  "1 in broadcast of 8 bytes"))
      << verdict.what;
}

TEST(Verdict, AllInsideAndNobodyInside) {
  const auto inside = use({0, 1}, 120, 119);
  auto verdict = judge({standing(0, {inside}), standing(1, {inside})}, hosts(2));
  EXPECT_TRUE(verdict.hang);
  EXPECT_TRUE(has(verdict.what, "all have entered it, and it does not end")) << verdict.what;
  verdict = judge({standing(0, {}), standing(1, {})}, hosts(2));
  EXPECT_TRUE(verdict.hang);
  EXPECT_TRUE(has(verdict.what, "no rank waits in a collective")) << verdict.what;
}

}  // namespace
}  // namespace seer::watch
