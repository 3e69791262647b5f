// SPDX-License-Identifier: Apache-2.0
// How a block passes through staging memory: the two strided copies per round of a device must move the same elements
// as MPI's copies, part by part. A reduce-scatter of the padded rows, with equal counts, must leave the sum in each
// rank's own part.
#include "../../src/comm/rounds.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace seer::comm {
namespace {

constexpr std::size_t kCounts[] = {0, 1, 2, 3, 5, 7, 64, 1000, 1003};
constexpr std::size_t kMosts[] = {1, 10, 100, std::size_t{1} << 40};
constexpr int kRanks[] = {1, 2, 3, 4, 7, 16};

template <class Check>
void for_all(const Check& check) {
  for (const auto count : kCounts) {
    for (const int ranks : kRanks) {
      for (const auto most : kMosts) {
        SCOPED_TRACE(testing::Message() << count << " elements, " << ranks << " ranks, rounds of " << most);
        check(count, ranks, Rounds(count, ranks, most));
      }
    }
  }
}

/// Does what a strided copy does, with indices instead of addresses.
template <class Move>
void each_of(const Rounds::Rows& rows, std::int64_t width, const Move& move) {
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    for (std::int64_t i = 0; i < rows.elems; ++i) {
      move(static_cast<std::size_t>(rows.begin + r * rows.stride + i),
           static_cast<std::size_t>((rows.first_row + r) * width + i));
    }
  }
}

TEST(Rounds, TwoStridedCopiesHoldEverySliceAndNothingElse) {
  for_all([](std::size_t, int ranks, const Rounds& rounds) {
    rounds.each([&](std::int64_t at, std::int64_t width) {
      std::vector<std::size_t> by_rows(static_cast<std::size_t>(ranks * width), SIZE_MAX), by_parts = by_rows;
      for (const auto& rows : rounds.rows(at, width)) {
        each_of(rows, width, [&](std::size_t in_block, std::size_t staged) { by_rows.at(staged) = in_block; });
      }
      for (int r = 0; r < ranks; ++r) {
        for (std::size_t i = 0; i < rounds.elems(r, at, width); ++i) {
          by_parts[static_cast<std::size_t>(r * width) + i] = rounds.begin(r, at) + i;
        }
      }
      EXPECT_EQ(by_rows, by_parts);
    });
  });
}

TEST(Rounds, CoverTheBlockOnceWithinTheirStaging) {
  for_all([](std::size_t count, int ranks, const Rounds& rounds) {
    std::vector<int> seen(count);
    rounds.each([&](std::int64_t at, std::int64_t width) {
      EXPECT_LE(static_cast<std::size_t>(width * ranks), rounds.most_elems());
      for (const auto& rows : rounds.rows(at, width)) {
        each_of(rows, width, [&](std::size_t in_block, std::size_t) { ++seen.at(in_block); });
      }
    });
    EXPECT_EQ(seen, std::vector<int>(count, 1));
  });
}

TEST(Rounds, ReduceScatterOfEqualCountsGivesEachRankItsPart) {
  for_all([](std::size_t count, int ranks, const Rounds& rounds) {
    const auto value = [](int rank, std::size_t i) { return static_cast<std::int64_t>(i) * 100 + rank; };
    std::vector<std::int64_t> found(count, -1);
    rounds.each([&](std::int64_t at, std::int64_t width) {
      std::vector<std::int64_t> staged(static_cast<std::size_t>(width * ranks));
      for (int rank = 0; rank < ranks; ++rank) {
        for (const auto& rows : rounds.rows(at, width)) {
          each_of(rows, width, [&](std::size_t in_block, std::size_t s) { staged[s] += value(rank, in_block); });
        }
      }
      for (int rank = 0; rank < ranks; ++rank) {
        for (std::size_t i = 0; i < rounds.elems(rank, at, width); ++i) {
          found[rounds.begin(rank, at) + i] = staged[static_cast<std::size_t>(rank * width) + i];
        }
      }
    });
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(found[i], static_cast<std::int64_t>(i) * 100 * ranks + ranks * (ranks - 1) / 2);
    }
  });
}

}  // namespace
}  // namespace seer::comm
