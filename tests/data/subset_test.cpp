// SPDX-License-Identifier: Apache-2.0
#include "seer/data/subset.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "seer/base/error.hpp"
#include "seer/data/source.hpp"
#include "tiny_shards.hpp"

namespace seer::data {
namespace {

using Indices = std::vector<std::uint64_t>;

/// 100 images: 70 of class 0, 20 of class 1, 9 of class 2, one without a class; mixed.
Targets mixed() {
  Targets out;
  for (std::int32_t i = 0; i < 100; ++i) {
    const std::int32_t at = i * 37 % 100, of = at < 70 ? 0 : at < 90 ? 1 : 2;
    out.add(std::span(&of, at == 99 ? 0U : 1U));
  }
  return out;
}

std::map<std::int32_t, std::int64_t> counts(const Targets& all, const Indices& chosen) {
  std::map<std::int32_t, std::int64_t> out;
  for (const auto i : chosen) {
    for (const auto c : all.of(i)) ++out[c];
    if (all.of(i).empty()) ++out[-1];
  }
  return out;
}

std::string refusal(const Targets& all, const SubsetChoice& choice, std::span<const std::string> names = {}) {
  try {
    choose_subset(all, 4, choice, names);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    return e.what();
  }
  return "no error";
}

TEST(Subset, TakesTheSamePartOfEveryClass) {
  const auto all = mixed();
  for (const double fraction : {0.001, 0.01, 0.07, 0.1, 0.5, 1.0}) {
    const auto chosen = choose_subset(all, 3, {fraction, 0, 5});
    const auto of = counts(all, chosen);
    const auto part = [&](int n) { return static_cast<std::int64_t>(std::ceil(fraction * n - 1e-9)); };
    EXPECT_EQ(of, (std::map<std::int32_t, std::int64_t>{{-1, 1}, {0, part(70)}, {1, part(20)}, {2, part(9)}}));
    EXPECT_TRUE(std::ranges::is_sorted(chosen));
  }
  EXPECT_EQ(counts(all, choose_subset(all, 3, {0.3, 4, 5})),
            (std::map<std::int32_t, std::int64_t>{{0, 4}, {1, 4}, {2, 4}}));
}

TEST(Subset, DependsOnTheSeedAloneAndSmallerOnesArePartsOfLarger) {
  const auto all = mixed();
  std::set<Indices> draws;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto few = choose_subset(all, 3, {0.1, 0, seed}), many = choose_subset(all, 3, {0.5, 0, seed});
    EXPECT_EQ(few, choose_subset(all, 3, {0.1, 0, seed}));
    EXPECT_TRUE(std::ranges::includes(many, few));
    draws.insert(few);
  }
  EXPECT_EQ(draws.size(), 20U);
  // Over many seeds every image of a class is chosen about equally often: 7 of 70, 2 of 20.
  std::vector<int> times(100);
  for (std::uint64_t seed = 0; seed < 2000; ++seed)
    for (const auto i : choose_subset(all, 3, {0.1, 0, seed})) ++times[i];
  for (std::size_t i = 0; i < 100; ++i)
    if (!all.of(i).empty() && all.of(i)[0] < 2) {
      EXPECT_NEAR(times[i], 200, 75) << i;  // 5.6 standard deviations
    }
}

TEST(Subset, ImagesOfSeveralClassesCountForEach) {
  Targets all;
  for (std::int32_t i = 0; i < 60; ++i) {
    const std::vector<std::int32_t> of = {i % 2, 2 + i % 3};
    all.add(of);
  }
  const auto of = counts(all, choose_subset(all, 5, {1, 6, 1}));
  for (std::int32_t c = 0; c < 5; ++c) EXPECT_GE(of.at(c), 6) << c;
  EXPECT_LE(choose_subset(all, 5, {1, 6, 1}).size(), 30U);
}

TEST(Subset, NothingAndTooFewAreRefused) {
  const auto all = mixed();
  const std::vector<std::string> names = {"ant", "bee", "cow", "dog"};
  EXPECT_EQ(refusal(all, {1, 10, 0}, names), "class cow has 9 images, wanted 10 of each class");
  EXPECT_EQ(refusal(all, {1, 1, 0}), "class number 3 has 0 images, wanted 1 of each class");
  EXPECT_NE(refusal({}, {0.5, 0, 0}).find("leaves none of 0 images"), std::string::npos);
}

TEST(Subset, DataSetReadsTheChosenImages) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  test::write_tiny_shards(folder, {});
  const auto whole = DataSet::open(folder.path(), world);
  const Indices indices = {0, 1, 7, 28, 29, 30, 31, 49};
  const auto few = whole.subset(indices);
  ASSERT_EQ(few.images(), indices.size());
  for (std::uint64_t first = 0; first < few.images(); ++first)
    for (std::uint64_t count = 0; count <= few.images() - first; ++count) {
      const auto places = few.places(first, count);
      const auto labels = few.labels(first, count);
      ASSERT_EQ(places.size(), count);
      for (std::uint64_t i = 0; i < count; ++i) {
        const auto wanted = whole.places(indices[first + i], 1).front();
        EXPECT_EQ(places[i].offset, wanted.offset);
        EXPECT_EQ(places[i].shard, wanted.shard);
        EXPECT_EQ(labels[i], static_cast<std::int32_t>(indices[first + i] % 3));
      }
    }
  EXPECT_EQ(few.describe(5), whole.describe(30));
  const auto fewer = few.subset({1, 6});
  EXPECT_EQ(fewer.describe(0), whole.describe(1));
  EXPECT_EQ(fewer.labels(1, 1).front(), 31 % 3);
  EXPECT_THROW(few.places(7, 2), Error);
  EXPECT_THROW(few.subset({3, 3}), Error);
  EXPECT_THROW(few.subset({8}), Error);
}

}  // namespace
}  // namespace seer::data
