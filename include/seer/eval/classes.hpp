// SPDX-License-Identifier: Apache-2.0
// Whether the classes of a training set and a test set go together: for all evaluations that learn from labels.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace seer::eval {

/// The class names of both sets: those of the training set in order, then those that only the test set has.
/// Error(file) if one set has class names and the other does not.
std::vector<std::string> common_classes(const std::vector<std::string>& train, const std::string& train_name,
                                        const std::vector<std::string>& test, const std::string& test_name);

/// Error(file): training images of one class only, or test images of classes that have no training image. `of_train`,
/// `of_test`: images of each class. `names`: of the classes; their numbers where there are none.
void require_learnable(const std::string& train_name, std::span<const std::int64_t> of_train,
                       const std::string& test_name, std::span<const std::int64_t> of_test,
                       std::span<const std::string> names);

}  // namespace seer::eval
