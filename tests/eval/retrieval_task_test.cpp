// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/retrieval_task.hpp"

#include <gtest/gtest.h>

#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

TEST(QueryFile, HoldsImagesBoxesAndLists) {
  const auto queries = parse_queries(
      R"({"queries": [{"image": "a/1.jpg", "box": [1, 2.5, 30, 40], "easy": ["x"], "junk": ["y", "z"]},
                      {"image": "b"}]})",
      "q.json");
  ASSERT_EQ(queries.size(), 2U);
  EXPECT_EQ(queries[0].image, "a/1.jpg");
  EXPECT_EQ(queries[0].box, (std::array{1.0, 2.5, 30.0, 40.0}));
  EXPECT_EQ(queries[0].answers[0], std::vector<std::string>{"x"});
  EXPECT_TRUE(queries[0].answers[1].empty());
  EXPECT_EQ(queries[0].answers[2].size(), 2U);
  EXPECT_FALSE(queries[1].box.has_value());
}

TEST(QueryFile, SaysWhichQueryIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {"[", "not JSON"},
      {"{}", "a list \"queries\""},
      {R"({"queries": []})", "a list \"queries\""},
      {R"({"queries": [{"image": "a"}, {"easy": []}]})", "query 1: wanted an object with \"image\""},
      {R"({"queries": [{"image": "a", "box": [1, 2, 3]}]})", "query 0: \"box\" must be"},
      {R"({"queries": [{"image": "a", "box": [5, 2, 5, 9]}]})", "the box is empty"},
      {R"({"queries": [{"image": "a", "easy": ["x", 3]}]})", "\"easy\" must be a list"},
      {R"({"queries": [{"image": "a", "easy": ["x"], "hard": ["x"]}]})", "x is listed twice"},
      {R"({"queries": [{"image": "a", "esay": ["x"]}]})", "unknown key \"esay\""}};
  for (const auto& [text, piece] : wrong) {
    try {
      parse_queries(text, "q.json");
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::file);
      EXPECT_NE(error.message().find(piece), std::string::npos) << error.message();
      EXPECT_NE(error.message().find("q.json"), std::string::npos);
    }
  }
}

/// Keys 1 and 2 have copies; 0 is a distractor. Group 1 are crops, 2 are JPEGs.
TEST(Copies, EachGroupIsJudgedWithoutTheOthers) {
  const ImageKeys database{{1, 2, 1, 0, 2, 1}, {1, 1, 2, 0, 2, 1}, {"", "crop", "jpeg"}};
  const auto task = copies_task("copies", {{2, 3, 1}, {0, 0, 0}, {""}}, database, false);
  ASSERT_EQ(task.judgements.size(), 3U);
  EXPECT_EQ(task.judgements[0].name, "all");
  EXPECT_EQ(task.judgements[0].right.size(), 3U);
  EXPECT_EQ(task.judgements[2].name, "jpeg");
  EXPECT_EQ(task.judgements[2].right, std::vector<std::size_t>{2});
  EXPECT_EQ(task.judgements[2].ignored, (std::vector<std::size_t>{0, 1}));
  ASSERT_EQ(task.queries.size(), 3U);
  EXPECT_EQ(task.queries[0].answers->groups, (std::vector<std::vector<std::uint64_t>>{{}, {1}, {4}}));
  EXPECT_EQ(task.queries[1].answers->groups, (std::vector<std::vector<std::uint64_t>>{{}, {}, {}}));
  EXPECT_EQ(task.queries[2].answers->groups, (std::vector<std::vector<std::uint64_t>>{{}, {0, 5}, {2}}));
  EXPECT_EQ(task.queries[2].self, -1);
  const auto within = copies_task("labels", database, database, true);
  EXPECT_EQ(within.queries[4].self, 4);
}

}  // namespace
}  // namespace seer::eval
