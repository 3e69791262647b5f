// SPDX-License-Identifier: Apache-2.0
// The classes and images of a linear evaluation. Private to linear.cpp and linear_problem.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/eval/linear.hpp"

namespace seer::eval {

using Images = std::vector<std::uint64_t>;

/// What is learnt: the classes of the training set, and the images of both sets that count.
struct Problem {
  bool several = false;
  std::vector<std::string> classes;
  std::int64_t count = 0;
  LabelledImages train, test;  ///< with targets in the numbers of `classes`; -1: another
  Images train_images, test_images;
};

/// Error(file): labels that cannot be learnt or tested.
Problem problem_of(const LinearSource& source, const LinearTask& task);

struct Parts {
  Images fit, held;
};

/// The training images of one draw, and a tenth of them that is held back for the choice of a head: of each class, but
/// never all of it. Error(input): too few images.
Parts parts_of(const Problem& problem, const LinearTask& task, std::int64_t draw, bool holds, int ranks);

ProbeTruth truth_of(const Problem& problem, const LabelledImages& set, std::span<const std::uint64_t> images);

}  // namespace seer::eval
