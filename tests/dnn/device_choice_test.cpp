// SPDX-License-Identifier: Apache-2.0
// The parts of the device's back end that need no device: choosing and keeping engines, row-major products written as
// column-major ones, padded widths.
#if defined(SEER_CUDA)
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "../../src/dnn/cuda/choices.hpp"
#include "../../src/dnn/cuda/cudnn_conv.hpp"
#include "naive.hpp"
#include "seer/base/error.hpp"

namespace seer::dnn {
namespace {

class ChoicesFile : public testing::Test {
 protected:
  ~ChoicesFile() override { std::filesystem::remove_all(folder); }
  std::string folder = testing::TempDir() + "seer_choices_" + std::to_string(getpid());
};

/// A way with the given time, which counts how often it is timed.
Candidate timed(const char* name, std::optional<double> us, int& asked, bool ready = true) {
  return {name,
          [us, &asked](double) {
            ++asked;
            return us;
          },
          [ready] { return ready; }};
}

TEST_F(ChoicesFile, TheFastestIsTakenKeptAndNotMeasuredAgain) {
  int asked = 0;
  const std::vector<Candidate> candidates{timed("slow", 30, asked), timed("cannot", std::nullopt, asked),
                                          timed("fast", 10.5, asked), timed("middle", 20, asked)};
  {
    Choices choices(folder, true);
    EXPECT_EQ(choose("key", candidates, choices, {}, "a shape"), 2U);
    EXPECT_EQ(asked, 4);
  }
  Choices again(folder, true);
  EXPECT_EQ(again.find("key"), (Choice{"fast", 10.5}));
  EXPECT_EQ(choose("key", candidates, again, {}, "a shape"), 2U);
  EXPECT_EQ(asked, 4);
  EXPECT_EQ(choose("another key", candidates, again, {}, "a shape"), 2U);
  EXPECT_EQ(asked, 8);
}

TEST_F(ChoicesFile, WhatOthersWroteStays) {
  Choices first(folder, true), second(folder, true);
  first.keep("a", {"x", 1});
  second.keep("b", {"y", 2});
  const Choices third(folder, false);
  EXPECT_EQ(third.find("a"), (Choice{"x", 1}));
  EXPECT_EQ(third.find("b"), (Choice{"y", 2}));
}

TEST_F(ChoicesFile, OneThatDoesNotWriteLeavesNoFile) {
  Choices(folder, false).keep("a", {"x", 1});
  Choices("", true).keep("a", {"x", 1});
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(ChoicesFile, WhatCannotBeReadIsIgnored) {
  std::filesystem::create_directories(folder);
  for (const char* text : {"{", "[]", R"({"format": 2})", R"({"format": 1, "choices": {"a": 3}})"}) {
    std::ofstream(folder + "/dnn_choices.json") << text;
    EXPECT_FALSE(Choices(folder, true).find("a")) << text;
  }
}

TEST(Choose, AKeptNameThatIsNotOfferedIsMeasuredAnew) {
  int asked = 0;
  Choices choices("", true);
  choices.keep("key", {"gone", 1});
  EXPECT_EQ(choose("key", {timed("there", 5, asked)}, choices, {}, "a shape"), 0U);
  EXPECT_EQ(asked, 1);
}

// Also if a saved choice is outdated: the key is the same, but the engine can no longer be made ready.
TEST(Choose, AKeptEngineThatIsNotReadyIsMeasuredAnewAndAgreed) {
  int asked = 0, agreed = 0;
  const Agree echo = [&](const std::string& mine) {
    ++agreed;
    return mine;
  };
  Choices choices("", true);
  choices.keep("key", {"broken", 1});
  const std::vector<Candidate> candidates{timed("broken", std::nullopt, asked, false), timed("there", 5, asked)};
  EXPECT_EQ(choose("key", candidates, choices, echo, "a shape"), 1U);
  EXPECT_EQ(agreed, 1);
  EXPECT_EQ(choices.find("key"), (Choice{"there", 5}));
}

TEST_F(ChoicesFile, TheRootsEngineThatIsNotReadyHereIsAnErrorThatNamesTheFile) {
  int asked = 0;
  Choices choices(folder, true);
  try {
    choose(
        "key", {timed("a", 1, asked), timed("b", 2, asked, false)}, choices,
        [](const std::string&) { return std::string("b"); }, "a shape");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_NE(error.message().find("engine b for a shape, but it cannot be made ready here"), std::string::npos);
    EXPECT_NE(error.remedy().find(folder + "/dnn_choices.json"), std::string::npos) << error.remedy();
  }
}

// If memory runs out or the device is broken, nothing is known about which way is fast.
TEST(Choose, AFailureThatIsNoRefusalEndsTheChoice) {
  int asked = 0;
  Choices choices("", true);
  const Candidate failing{"failing",
                          [](double) -> std::optional<double> { throw Error(ExitCode::device, "no memory"); },
                          [] { return true; }};
  EXPECT_THROW(choose("key", {timed("slow", 9, asked), failing}, choices, {}, "a shape"), Error);
  EXPECT_FALSE(choices.find("key"));
}

TEST(Choose, TheRootsChoiceIsEverybodys) {
  int asked = 0;
  std::vector<std::string> told;
  const Agree root_says_b = [&](const std::string& mine) {
    told.push_back(mine);
    return std::string("b");
  };
  Choices choices("", true);
  const std::vector<Candidate> candidates{timed("a", 1, asked), timed("b", 2, asked)};
  EXPECT_EQ(choose("key", candidates, choices, root_says_b, "a shape"), 1U);
  EXPECT_EQ(told, std::vector<std::string>{"a"});
  EXPECT_FALSE(choices.find("key")) << "this rank timed another engine than the root chose";
}

TEST(Choose, NoEngineOrAnUnknownOneIsAnErrorAfterTheAgreement) {
  int asked = 0, agreed = 0;
  const Agree echo = [&](const std::string& mine) {
    ++agreed;
    return mine;
  };
  Choices choices("", true);
  EXPECT_THROW(choose("key", {timed("a", std::nullopt, asked)}, choices, echo, "a shape"), Error);
  EXPECT_EQ(agreed, 1);
  try {
    choose(
        "key", {timed("a", 1, asked)}, choices, [](const std::string&) { return std::string("z"); }, "a shape");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_NE(error.message().find("engine z for a shape"), std::string::npos) << error.message();
  }
}

TEST(Choose, TheFirstThatIsReadyWhereNothingIsMeasured) {
  int asked = 0;
  EXPECT_EQ(first_ready({timed("a", 1, asked, false), timed("b", 9, asked), timed("c", 1, asked)}, {}, "a shape"), 1U);
  EXPECT_EQ(asked, 0);
  EXPECT_THROW(first_ready({timed("a", 1, asked, false)}, {}, "a shape"), Error);
  const Agree root_says_b = [](const std::string&) { return std::string("b"); };
  EXPECT_EQ(first_ready({timed("a", 1, asked), timed("b", 9, asked)}, root_says_b, "a shape"), 1U);
}

TEST(ChoiceKey, NamesAllThatTheChoiceDependsOn) {
  const ConvShape s{.n = 2, .h = 5, .w = 6, .c_in = 48, .c_out = 24, .kernel = 3, .stride = 2, .pad = 1, .groups = 3};
  const std::string machine = "NVIDIA H100 | cuDNN 9.19.0 | driver 13000";
  DeviceOptions options;
  options.workspace_bytes = 64;
  const auto key = choice_key(machine, options, Direction::backward_data, s, DType::bf16, 16);
  EXPECT_EQ(
      key,
      "NVIDIA H100 | cuDNN 9.19.0 | driver 13000 | workspace 64 | backward_data bf16 n 2 h 5 w 6 c 48 24 kernel 3 "
      "stride 2 pad 1 groups 3 alignment 16");
  auto other = options;
  other.deterministic = true;
  EXPECT_NE(choice_key(machine, other, Direction::backward_data, s, DType::bf16, 16), key);
  other = options;
  other.float_weight_gradients = true;
  EXPECT_NE(choice_key(machine, other, Direction::backward_data, s, DType::bf16, 16), key);
  EXPECT_NE(choice_key(machine, options, Direction::forward, s, DType::bf16, 16), key);
  EXPECT_NE(choice_key(machine, options, Direction::backward_data, s, DType::f16, 16), key);
  EXPECT_NE(choice_key(machine, options, Direction::backward_data, s, DType::bf16, 8), key);
}

// A column-major product by the definition, as cuBLASLt computes it.
TEST(ColumnMajor, GivesTheRowMajorProduct) {
  const std::int64_t m = 3, n = 4, k = 5;
  const auto a = naive::random(m * k, 1), b = naive::random(k * n, 2);
  for (const auto ta : {Transpose::no, Transpose::yes}) {
    for (const auto tb : {Transpose::no, Transpose::yes}) {
      const auto c = column_major({.m = m, .n = n, .k = k, .ta = ta, .tb = tb});
      naive::Floats found(naive::at(m * n));
      const auto element = [](const naive::Floats& x, std::int64_t leading, bool transposed, std::int64_t row,
                              std::int64_t column) {
        return static_cast<double>(x[naive::at(transposed ? column + row * leading : row + column * leading)]);
      };
      ASSERT_EQ(c.transpose_a ? c.rows_a : c.columns_a, k);
      ASSERT_EQ(c.transpose_b ? c.columns_b : c.rows_b, k);
      ASSERT_EQ(c.transpose_a ? c.columns_a : c.rows_a, c.rows_c);
      ASSERT_EQ(c.transpose_b ? c.rows_b : c.columns_b, c.columns_c);
      for (std::int64_t row = 0; row < c.rows_c; ++row) {
        for (std::int64_t column = 0; column < c.columns_c; ++column) {
          double sum = 0;
          for (std::int64_t l = 0; l < k; ++l) {
            sum += element(b, c.rows_a, c.transpose_a, row, l) * element(a, c.rows_b, c.transpose_b, l, column);
          }
          found[naive::at(row + column * c.rows_c)] = static_cast<float>(sum);
        }
      }
      EXPECT_LT(naive::relative_error(found, naive::gemm(m, n, k, a, ta, b, tb, {}, {})), 1e-6);
    }
  }
}

TEST(Alignment, IsTheLargestPowerOfTwoUpTo16) {
  for (const auto& [address, wanted] :
       {std::pair<std::uintptr_t, std::int64_t>{0x1000, 16}, {0x1010, 16}, {0x1008, 8}, {0x100c, 4}, {0x1002, 2}}) {
    EXPECT_EQ(alignment_bytes(reinterpret_cast<const void*>(address)), wanted);
  }
}

TEST(PaddedWidths, RoundEachGroupUpToEight) {
  const PaddedWidths p(ConvShape{.c_in = 2020, .c_out = 15, .groups = 5});
  EXPECT_TRUE(p.needed());
  EXPECT_EQ(p.shape({.c_in = 2020, .c_out = 15, .groups = 5}).c_in, 5 * 408);
  EXPECT_EQ(p.shape({.c_in = 2020, .c_out = 15, .groups = 5}).c_out, 5 * 8);
  EXPECT_FALSE(PaddedWidths(ConvShape{.c_in = 528, .c_out = 1056, .groups = 2}).needed());
}

}  // namespace
}  // namespace seer::dnn
#endif
