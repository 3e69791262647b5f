// SPDX-License-Identifier: Apache-2.0
#include "seer/data/source.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace seer::data {
namespace {

std::vector<std::uint64_t> epoch_of(const Sampler& sampler, std::uint64_t epoch) {
  std::vector<std::uint64_t> order;
  for (std::uint64_t place = 0; place < sampler.images(); ++place) order.push_back(sampler.image(epoch, place));
  return order;
}

TEST(Sampler, EveryEpochHoldsEveryImageOnce) {
  // Sizes around block and window boundaries: (images, block, window).
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> cases;
  for (const std::uint64_t n :
       {1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 255, 256, 257, 1009, 4096, 10007})
    for (const auto& [block, window] :
         {std::pair<std::uint64_t, std::uint64_t>{1, 1}, {4, 2}, {8, 4}, {16, 3}, {32, 16}, {1024, 16}})
      cases.emplace_back(n, block, window);
  for (const auto& [n, block, window] : cases) {
    const Sampler sampler(n, 7, block, window);
    for (const std::uint64_t epoch : {0, 1, 2, 1000}) {
      auto order = epoch_of(sampler, epoch);
      std::sort(order.begin(), order.end());
      for (std::uint64_t i = 0; i < n; ++i)
        ASSERT_EQ(order[i], i) << n << " images, blocks of " << block << ", windows of " << window << ", epoch "
                               << epoch;
    }
  }
}

TEST(Sampler, PermutationsInvertAndDependOnKey) {
  for (const std::uint64_t n : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto to = permute(i, n, 99);
      ASSERT_LT(to, n);
      ASSERT_TRUE(seen.insert(to).second);
      ASSERT_EQ(permute_back(to, n, 99), i);
    }
  }
  // Each of the 6 orders of three elements occurs about equally often.
  std::map<std::vector<std::uint64_t>, int> orders;
  for (std::uint64_t key = 0; key < 6000; ++key) ++orders[{permute(0, 3, key), permute(1, 3, key), permute(2, 3, key)}];
  EXPECT_EQ(orders.size(), 6U);
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, 1000, 150);
}

TEST(Sampler, EpochsAndSeedsDiffer) {
  const Sampler sampler(1000, 1, 64, 4), other(1000, 2, 64, 4);
  const auto first = epoch_of(sampler, 0), second = epoch_of(sampler, 1), seeded = epoch_of(other, 0);
  const auto agreeing = [](const auto& a, const auto& b) {
    int count = 0;
    for (std::size_t i = 0; i < a.size(); ++i) count += a[i] == b[i] ? 1 : 0;
    return count;
  };
  EXPECT_LT(agreeing(first, second), 30);
  EXPECT_LT(agreeing(first, seeded), 30);
  EXPECT_EQ(first, epoch_of(Sampler(1000, 1, 64, 4), 0));
}

TEST(Sampler, PositionsRunThroughEpochs) {
  const Sampler sampler(10, 5, 4, 2);
  for (std::uint64_t position = 0; position < 35; ++position)
    EXPECT_EQ(sampler.image(position), sampler.image(position / 10, position % 10));
}

TEST(Sampler, WindowsTouchOnlyTheirBlocks) {
  const std::uint64_t images = 1000, block = 16, window = 4;  // 63 blocks, the last of 8 images
  const Sampler sampler(images, 3, block, window);
  for (std::uint64_t epoch = 0; epoch < 5; ++epoch) {
    const auto order = epoch_of(sampler, epoch);
    std::set<std::uint64_t> finished;
    std::size_t at = 0;
    std::uint64_t windows = 0, unsorted = 0;
    while (at < order.size()) {
      // Images until the current window's blocks are all used up: at most `window` distinct blocks, none seen before.
      std::map<std::uint64_t, std::uint64_t> left;
      do {
        const std::uint64_t from = order[at] / block;
        ASSERT_EQ(finished.count(from), 0U);
        if (left.count(from) == 0) left[from] = std::min(block, images - from * block);
        --left[from];
        if (at > 0 && order[at] != order[at - 1] + 1) ++unsorted;
        ++at;
        ASSERT_LE(left.size(), window);
      } while (at < order.size() && (left.size() < window || std::any_of(left.begin(), left.end(),
                                                                         [](const auto& l) { return l.second > 0; })));
      for (const auto& [number, count] : left) {
        EXPECT_EQ(count, 0U);
        finished.insert(number);
      }
      ++windows;
    }
    EXPECT_EQ(windows, 16U);
    EXPECT_GT(unsorted, 900U);
  }
}

TEST(Sampler, LargeDataSetsNeedNoMemory) {
  const Sampler sampler(1000000007ULL, 11, 1024, 16);
  std::set<std::uint64_t> seen, blocks;
  for (std::uint64_t place = 500000000; place < 500002000; ++place) {
    const auto image = sampler.image(3, place);
    ASSERT_LT(image, sampler.images());
    ASSERT_TRUE(seen.insert(image).second);
    blocks.insert(image / 1024);
  }
  EXPECT_LE(blocks.size(), 32U);  // at most two windows
}

}  // namespace
}  // namespace seer::data
