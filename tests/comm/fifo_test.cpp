// SPDX-License-Identifier: Apache-2.0
#include "../../src/comm/fifo.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace seer::comm {
namespace {

TEST(Fifo, IsAQueue) {
  Fifo<int> found;
  std::deque<int> wanted;
  std::mt19937 random(1);
  for (int i = 0; i < 10000; ++i) {
    if (!wanted.empty() && random() % 2 == 0) {
      EXPECT_EQ(found.front(), wanted.front());
      found.pop_front();
      wanted.pop_front();
    } else {
      found.push_back(i);
      wanted.push_back(i);
    }
    ASSERT_EQ(found.size(), wanted.size());
    ASSERT_EQ(found.empty(), wanted.empty());
    ASSERT_TRUE(std::equal(found.begin(), found.end(), wanted.begin(), wanted.end()));
    if (!wanted.empty()) {
      ASSERT_EQ(found[wanted.size() - 1], wanted.back());
    }
  }
}

TEST(Fifo, StaysWhereItIsWhilePlacesBecomeFree) {
  Fifo<int> queue;
  for (int i = 0; i < 8; ++i) queue.push_back(i);
  const int* lowest = &queue.front();
  for (int i = 0; i < 1000; ++i) {
    queue.pop_front();
    queue.push_back(i);
    EXPECT_GE(&queue.front(), lowest);
    EXPECT_LT(&queue.front(), lowest + 16);
  }
}

}  // namespace
}  // namespace seer::comm
