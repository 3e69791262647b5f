// SPDX-License-Identifier: Apache-2.0
// How often images of one class are taken for another. Only the pairs that occur are stored, so many classes cost no
// more than the images.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::eval {

class Confusion {
 public:
  /// Counts images with these true and predicted classes. Images whose true class is negative are left out.
  void add(std::span<const std::int32_t> truth, std::span<const std::int32_t> predicted);
  /// Collective. Afterwards every rank has the sum over all ranks.
  void sum(const comm::Communicator& comm);

  struct Class {
    std::int64_t images = 0, right = 0;
    double accuracy() const { return images > 0 ? static_cast<double>(right) / static_cast<double>(images) : 0; }
  };
  /// One entry per class.
  std::vector<Class> per_class(std::int64_t classes) const;

  struct Cell {
    std::int32_t truth = 0, predicted = 0;
    std::int64_t images = 0;
    bool operator==(const Cell&) const = default;
  };
  /// All cells that are not zero, by true and then by predicted class.
  std::vector<Cell> cells() const;
  /// The wrong cells with most images, at most `most`; of equal ones the lower classes first.
  std::vector<Cell> largest_errors(std::size_t most) const;

 private:
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts_;
};

}  // namespace seer::eval
