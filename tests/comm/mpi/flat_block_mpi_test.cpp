// SPDX-License-Identifier: Apache-2.0
// Collectives over flat blocks, compared with sums computed here: counts that the number of ranks does not divide,
// fewer elements than ranks, no elements, messages of many rounds. In groups of 1, 2, 3 and 4 ranks, if there are so
// many.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "seer/base/half.hpp"
#include "seer/comm/communicator.hpp"
#include "sums.hpp"

namespace seer::comm {
namespace {

constexpr std::size_t kCounts[] = {0, 1, 2, 3, 5, 64, 1000, 1003};
constexpr std::size_t kStagings[] = {1, 40, 512, Communicator::kStagingBytes};

/// The first `ranks` ranks of the world, and the rest.
template <class Check>
void in_groups(const Check& check) {
  const auto world = Communicator::world();
  for (int ranks = 1; ranks <= world.size(); ++ranks) {
    const auto group = world.split(world.rank() < ranks ? 0 : 1);
    for (const auto count : kCounts) {
      SCOPED_TRACE(testing::Message() << count << " elements on " << group.size() << " ranks");
      check(group, count);
    }
  }
}

TEST(FlatBlock, ReduceScatterLeavesTheSumInTheOwnPart) {
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    for (const auto staging : kStagings) {
      in_groups([&](const Communicator& group, std::size_t count) {
        auto whole = of_rank(group.rank(), count);
        group.reduce_scatter_parts(whole, wire, staging);
        const auto all = static_cast<std::int64_t>(count);
        const auto begin = balanced_begin(all, group.rank(), group.size());
        const auto end = balanced_begin(all, group.rank() + 1, group.size());
        for (auto i = begin; i < end; ++i) {
          expect_sum(group, wire, static_cast<std::size_t>(i), whole[static_cast<std::size_t>(i)]);
        }
      });
    }
  }
}

TEST(FlatBlock, ReduceScatterGivesTheSameBitsEveryTime) {
  for (const auto wire : {DType::f32, DType::bf16}) {
    in_groups([&](const Communicator& group, std::size_t count) {
      auto first = of_rank(group.rank(), count), second = first;
      group.reduce_scatter_parts(first, wire, 64);
      group.reduce_scatter_parts(second, wire, 64);
      EXPECT_EQ(first, second);
    });
  }
}

TEST(FlatBlock, SumIsTheSameOnAllRanks) {
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    for (const auto staging : kStagings) {
      in_groups([&](const Communicator& group, std::size_t count) {
        auto values = of_rank(group.rank(), count);
        group.sum(values, wire, staging);
        for (std::size_t i = 0; i < count; ++i) expect_sum(group, wire, i, values[i]);
        auto highest = values, lowest = values;
        group.all_reduce(highest, Op::max);
        group.all_reduce(lowest, Op::min);
        EXPECT_EQ(highest, lowest);
      });
    }
  }
}

TEST(FlatBlock, WhatIsNotFiniteOnOneRankIsNotFiniteInTheSum) {
  const auto world = Communicator::world();
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> values(9, 1.0F);
      if (world.rank() == world.size() - 1) values[4] = bad;
      world.sum(values, wire);
      EXPECT_FALSE(std::isfinite(values[4]));
      EXPECT_EQ(values[3], static_cast<float>(world.size()));
    }
  }
}

TEST(FlatBlock, GatherOfPartsIsTheWholeInOneMessageOrInRounds) {
  for (const std::size_t most_elems : {std::size_t{1} << 30, std::size_t{2}}) {
    in_groups([&](const Communicator& group, std::size_t count) {
      const auto wanted = of_rank(5, count);
      const auto all = static_cast<std::int64_t>(count);
      std::vector<float> whole(count, -1.0F);
      for (auto i = balanced_begin(all, group.rank(), group.size());
           i < balanced_begin(all, group.rank() + 1, group.size()); ++i) {
        whole[static_cast<std::size_t>(i)] = wanted[static_cast<std::size_t>(i)];
      }
      group.all_gather_parts(whole, most_elems, 64);
      EXPECT_EQ(whole, wanted);
    });
  }
}

TEST(Traffic, CountsCallsAndPayloadByKindUnderTheName) {
  const auto world = Communicator::world();
  EXPECT_TRUE(world.traffic().empty());
  const auto group = world.split(0).named("group");
  std::vector<float> values(10);
  group.all_reduce(std::span(values));
  group.sum(values, DType::bf16);
  group.reduce_scatter_parts(values, DType::f16, 4);
  group.all_gather_parts(values);
  group.barrier();
  const auto counted = group.traffic();
  if (world.size() == 1) {
    EXPECT_TRUE(counted.empty()) << "one rank sends nothing";
    return;
  }
  const struct {
    const char* kind;
    std::int64_t calls, bytes;
  } wanted[] = {{"all_reduce", 2, 40 + 20}, {"reduce_scatter", 1, 20}, {"all_gather", 1, 40}, {"barrier", 1, 0}};
  ASSERT_EQ(counted.size(), std::size(wanted));
  for (std::size_t i = 0; i < counted.size(); ++i) {
    EXPECT_EQ(counted[i].name, "group");
    EXPECT_EQ(counted[i].group_size, world.size());
    EXPECT_STREQ(counted[i].kind, wanted[i].kind);
    EXPECT_EQ(counted[i].calls, wanted[i].calls) << wanted[i].kind;
    EXPECT_EQ(counted[i].bytes, wanted[i].bytes) << wanted[i].kind;
  }
  EXPECT_TRUE(world.traffic().empty()) << "each communicator has its own counters";
}

}  // namespace
}  // namespace seer::comm
