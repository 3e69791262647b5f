// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/dtype.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/random.hpp"

namespace seer {
namespace {

using Words = std::array<std::uint32_t, 4>;

/// Philox 4x32-10 written straight from the article (Salmon et al. 2011, section 3.3), to check Random against.
Words philox(Words c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0], p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(p0)};
    k = {k[0] + 0x9E3779B9, k[1] + 0xBB67AE85};
  }
  return c;
}

Words draw_four(Random& random) {
  Words out;
  for (auto& word : out) word = random.bits();
  return out;
}

TEST(Random, PhiloxOfTheTestMatchesTheKnownAnswers) {
  // Random123's kat_vectors, philox4x32 with 10 rounds.
  constexpr std::uint32_t f = 0xffffffff;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({f, f, f, f}, {f, f}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, StreamIsPhiloxWithTheNameInKeyAndCounter) {
  // b chosen so that the counter is all zero: the first known answer itself.
  Random zero(0, Purpose::test, 0, 0x08000000);
  EXPECT_EQ(draw_four(zero), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  Random named(0x299f31d0a4093822, Purpose::augmentation, 0x13198a2e85a308d3, 7);
  for (std::uint32_t block = 0; block < 3; ++block) {
    EXPECT_EQ(draw_four(named), philox({block, 0x85a308d3, 0x13198a2e, 0x02000007}, {0xa4093822, 0x299f31d0}));
  }
}

TEST(Random, StreamsOfDifferentNamesDiffer) {
  std::set<Words> seen;
  std::size_t streams = 0;
  for (std::uint64_t seed : {0ULL, 1ULL, 1ULL << 40}) {
    for (auto purpose : {Purpose::epoch_order, Purpose::augmentation, Purpose::parameter, Purpose::test}) {
      for (std::uint64_t a : {0ULL, 1ULL, 1ULL << 40}) {
        for (std::uint32_t b : {0U, 1U, 5U}) {
          Random random(seed, purpose, a, b);
          seen.insert(draw_four(random));
          ++streams;
        }
      }
    }
  }
  EXPECT_EQ(seen.size(), streams);
}

TEST(Random, SameNameGivesTheSameNumbers) {
  Random one(3, Purpose::test, 4, 5), two(3, Purpose::test, 4, 5);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(one.uniform(), two.uniform());
    ASSERT_EQ(one.normal(), two.normal());
    ASSERT_EQ(one.below(1000), two.below(1000));
  }
}

TEST(Random, UniformFillsItsRange) {
  Random random(1, Purpose::test);
  double sum = 0, least = 1, most = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = random.uniform();
    sum += u;
    least = std::min(least, u);
    most = std::max(most, u);
  }
  EXPECT_GE(least, 0.0);
  EXPECT_LT(most, 1.0);
  EXPECT_LT(least, 1e-3);
  EXPECT_GT(most, 1 - 1e-3);
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  Random scaled(1, Purpose::test);
  for (int i = 0; i < 1000; ++i) {
    const double u = scaled.uniform(-3, 5);
    ASSERT_GE(u, -3);
    ASSERT_LT(u, 5);
  }
}

TEST(Random, BelowIsUnbiased) {
  for (std::uint64_t n : {1ULL, 2ULL, 3ULL, 7ULL, 10ULL}) {
    Random random(2, Purpose::test, n);
    std::vector<double> counts(n);
    constexpr int kDraws = 70000;
    for (int i = 0; i < kDraws; ++i) {
      const auto draw = random.below(n);
      ASSERT_LT(draw, n);
      ++counts[draw];
    }
    const double expected = static_cast<double>(kDraws) / static_cast<double>(n);
    for (double count : counts) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected)) << "n = " << n;
  }
  // 3/4 of 2^64 is the worst case for a draw modulo n: its lower third would come up twice as often.
  Random random(2, Purpose::test, 99);
  constexpr std::uint64_t kLarge = 3ULL << 62;
  int lower_third = 0;
  constexpr int kDraws = 30000;
  for (int i = 0; i < kDraws; ++i) {
    const auto draw = random.below(kLarge);
    ASSERT_LT(draw, kLarge);
    lower_third += draw < kLarge / 3 ? 1 : 0;
  }
  EXPECT_NEAR(lower_third, kDraws / 3.0, 5 * std::sqrt(kDraws * 2.0 / 9));
}

TEST(Random, NormalHasTheMomentsOfANormal) {
  Random random(4, Purpose::test);
  constexpr int kDraws = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(fourth / kDraws, 3, 5 * std::sqrt(96.0 / kDraws));
}

TEST(Checksum, IsXxh3WithSeedZero) {
  EXPECT_EQ(checksum(""), 0x2d06800538d394c2ULL);
  EXPECT_EQ(checksum("abc"), 0x78af5f94892f3950ULL);
  EXPECT_EQ(checksum("abc", 3), checksum(std::string_view("abcd").substr(0, 3)));
  EXPECT_NE(checksum("abc"), checksum("abd"));
  Checksum pieces;
  const std::string text(1000, 'x');
  for (std::size_t at = 0; at < text.size(); at += 300)
    pieces.add(text.data() + at, std::min<std::size_t>(300, 1000 - at));
  EXPECT_EQ(pieces.value(), checksum(text)) << "in pieces";
}

TEST(Error, MessageHoldsWhatRemedyAndPlace) {
  const Error error(ExitCode::file, "shard a.h5: found version 9, wanted 1", "pack it again");
  const std::string place = error.where();
  EXPECT_EQ(place.rfind("tests/base/base_test.cpp:", 0), 0U) << place;
  EXPECT_EQ(error.message(), "shard a.h5: found version 9, wanted 1; pack it again [" + place + "]");
  EXPECT_STREQ(error.what(), "shard a.h5: found version 9, wanted 1");
  EXPECT_EQ(error.code(), ExitCode::file);
  EXPECT_EQ(Error(ExitCode::input, "bad").at("src/x.cpp:3").message(), "bad [src/x.cpp:3]");
}

TEST(Error, IsAgreedOnlyWhereSaid) {
  const Error error(ExitCode::file, "found", "remedy");
  EXPECT_FALSE(error.agreed());
  const Error same = error.at("src/x.cpp:3").as_agreed();
  EXPECT_TRUE(same.agreed());
  EXPECT_TRUE(same.at("src/y.cpp:4").agreed());
  EXPECT_EQ(same.message(), "found; remedy [src/x.cpp:3]");
  EXPECT_FALSE(error.agreed());
}

TEST(Error, EnsureThrowsInternalAndNamesItsPlace) {
  EXPECT_NO_THROW(ensure(true, "fine"));
  try {
    ensure(false, "rows agree");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::internal);
    EXPECT_EQ(e.where().rfind("tests/base/base_test.cpp:", 0), 0U);
  }
}

TEST(Error, ExitCodesAreTheDocumentedOnes) {
  EXPECT_EQ(static_cast<int>(ExitCode::ok), 0);
  EXPECT_EQ(static_cast<int>(ExitCode::input), 2);
  EXPECT_EQ(static_cast<int>(ExitCode::file), 3);
  EXPECT_EQ(static_cast<int>(ExitCode::numerics), 4);
  EXPECT_EQ(static_cast<int>(ExitCode::device), 5);
  EXPECT_EQ(static_cast<int>(ExitCode::internal), 6);
  EXPECT_EQ(static_cast<int>(ExitCode::requeue), 75);
}

TEST(Log, WarningsAreCountedAndErrorsAreOneLine) {
  log::warn("base test: twice");
  log::warn("base test: twice");
  const auto all = log::warnings();
  EXPECT_NE(std::find(all.begin(), all.end(), "base test: twice (2 times)"), all.end());
  testing::internal::CaptureStderr();
  log::error("base test: broken");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: rank 0/1 on " + log::host_name() + ": base test: broken\n");
}

TEST(Base, SizesAndVersion) {
  EXPECT_EQ(dtype_bytes(DType::f32), 4U);
  EXPECT_EQ(dtype_bytes(DType::bf16), 2U);
  EXPECT_EQ(dtype_bytes(DType::f16), 2U);
  EXPECT_EQ(dtype_bytes(DType::u8), 1U);
  EXPECT_TRUE(std::regex_match(build_info(), std::regex("seer [0-9]+(\\.[0-9]+)+ \\(.+, .+\\)"))) << build_info();
}

}  // namespace
}  // namespace seer
