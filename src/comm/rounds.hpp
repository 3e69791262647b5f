// SPDX-License-Identifier: Apache-2.0
// Moves a block, of which every rank owns a part, through staging memory in rounds, over MPI and on devices alike.
#pragma once

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "seer/comm/communicator.hpp"

namespace seer::comm {

/// A block of `count` elements of which each of `ranks` ranks owns a part. It is processed in rounds, each with one
/// slice of every part. Parts differ by one element at most, so all slices of a round have the same width except for
/// that element.
class Rounds {
 public:
  /// Slices as rows of a matrix. In the block, row 0 is at `begin` and rows are `stride` apart; in staging memory, they
  /// begin at row `first_row` and are the width of the round apart.
  struct Rows {
    std::int64_t first_row = 0, rows = 0;
    std::int64_t begin = 0, stride = 0;
    std::int64_t elems = 0;  ///< of each row
  };

  Rounds(std::size_t count, int ranks, std::size_t most_elems)
      : count_(static_cast<std::int64_t>(count)), ranks_(ranks), longest_((count_ + ranks - 1) / ranks) {
    const auto most = static_cast<std::int64_t>(std::min<std::size_t>(most_elems, INT_MAX));
    slice_ = std::clamp<std::int64_t>(most / ranks, 1, std::max<std::int64_t>(longest_, 1));
  }
  std::size_t most_elems() const { return static_cast<std::size_t>(slice_ * ranks_); }

  /// Calls round(begin, width) until all is done. The slices begin at `begin` of their parts.
  template <class Round>
  void each(const Round& round) const {
    for (std::int64_t at = 0; at < longest_; at += slice_) round(at, std::min(slice_, longest_ - at));
  }
  /// Where part r's slice lies in the block, and how many of `width` elements it has.
  std::size_t begin(int r, std::int64_t at) const { return static_cast<std::size_t>(part(r) + at); }
  std::size_t elems(int r, std::int64_t at, std::int64_t width) const {
    return static_cast<std::size_t>(std::clamp<std::int64_t>(part(r + 1) - part(r) - at, 0, width));
  }
  /// All slices of a round as two matrices, one of the longer parts and one of the others; either may have no rows or
  /// no elements. So a device moves them in two copies, whatever the number of ranks.
  std::array<Rows, 2> rows(std::int64_t at, std::int64_t width) const {
    const std::int64_t shorter = count_ / ranks_, longer_parts = count_ % ranks_;
    const auto left = [&](std::int64_t part_elems) { return std::clamp<std::int64_t>(part_elems - at, 0, width); };
    return {{{0, longer_parts, at, shorter + 1, left(shorter + 1)},
             {longer_parts, ranks_ - longer_parts, longer_parts * (shorter + 1) + at, shorter, left(shorter)}}};
  }

 private:
  std::int64_t part(int r) const { return balanced_begin(count_, r, ranks_); }
  std::int64_t count_;
  int ranks_;
  std::int64_t longest_, slice_ = 1;
};

}  // namespace seer::comm
