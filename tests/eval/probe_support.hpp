// SPDX-License-Identifier: Apache-2.0
// The rows of tests/data/probes.h5 (validation/reference/probes.py) as examples.
#pragma once

#include <string>
#include <vector>

#include "seer/eval/examples.hpp"
#include "support.hpp"

namespace seer::test {

/// This rank's slice of made-up examples.
inline eval::ExamplePair pair_of(const comm::Communicator& comm, const std::vector<float>& train,
                                 const std::vector<std::int32_t>& train_labels, const std::vector<float>& test,
                                 const std::vector<std::int32_t>& test_labels) {
  return eval::make_examples(comm, slice(train, train_labels, comm), slice(test, test_labels, comm), {});
}

struct Probes {
  GoldenFile file{"probes.h5"};
  std::vector<std::int32_t> labels(const std::string& name) const {
    const auto values = file.read(name).values;
    return {values.begin(), values.end()};
  }
  /// Rows of classes below `classes`.
  eval::ExamplePair pair(const comm::Communicator& comm, std::int32_t classes = 5) const {
    std::vector<float> rows[2];
    std::vector<std::int32_t> kept[2];
    const char* const names[] = {"train", "test"};
    for (int set = 0; set < 2; ++set) {
      const auto all = file.read(names[set]);
      const auto of_all = labels(std::string(names[set]) + "_labels");
      const auto d = static_cast<std::ptrdiff_t>(all.dims[1]);
      for (std::size_t i = 0; i < of_all.size(); ++i) {
        if (of_all[i] >= classes) continue;
        const auto row = all.values.begin() + static_cast<std::ptrdiff_t>(i) * d;
        rows[set].insert(rows[set].end(), row, row + d);
        kept[set].push_back(of_all[i]);
      }
    }
    return pair_of(comm, rows[0], kept[0], rows[1], kept[1]);
  }
};

/// The largest difference between a model's decision values and those stored, and of the values stored.
inline std::pair<double, double> compare_scores(const eval::LinearModel& model, const eval::Examples& test,
                                                const std::vector<double>& wanted) {
  const auto found = model.scores(test, 0, test.rows());
  const std::size_t per_row = wanted.size() / test.all, classes = found.size() / test.rows();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < test.rows(); ++i)
    for (std::size_t c = 0; c < per_row; ++c) {
      const double value = wanted[(test.first + i) * per_row + c];
      worst = std::max(worst, std::abs(static_cast<double>(found[i * classes + c + classes - per_row]) - value));
      largest = std::max(largest, std::abs(value));
    }
  return {worst, largest};
}

}  // namespace seer::test
