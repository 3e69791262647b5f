// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/classes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <set>

#include "seer/base/error.hpp"
#include "seer/base/names.hpp"

namespace seer::eval {

std::vector<std::string> common_classes(const std::vector<std::string>& train, const std::string& train_name,
                                        const std::vector<std::string>& test, const std::string& test_name) {
  if (train.empty() != test.empty()) {
    throw Error(ExitCode::file,
                fmt::format("{} names no classes, {} names {}", train.empty() ? train_name : test_name,
                            train.empty() ? test_name : train_name, std::max(train.size(), test.size())),
                "labels are compared by the names of their classes: pack both sets with seer pack");
  }
  std::vector<std::string> both = train;
  const std::set<std::string> known(train.begin(), train.end());
  std::ranges::copy_if(test, std::back_inserter(both), [&](const auto& name) { return !known.contains(name); });
  return both;
}

void require_learnable(const std::string& train_name, std::span<const std::int64_t> of_train,
                       const std::string& test_name, std::span<const std::int64_t> of_test,
                       std::span<const std::string> names) {
  if (std::ranges::count_if(of_train, [](auto images) { return images > 0; }) < 2)
    throw Error(
        ExitCode::file,
        fmt::format("{}: all {} images are of one class", train_name, std::reduce(of_train.begin(), of_train.end())),
        "a classifier needs at least two");
  std::vector<std::string> strange;
  std::int64_t images = 0;
  for (std::size_t c = 0; c < of_test.size(); ++c) {
    if (of_test[c] == 0 || (c < of_train.size() && of_train[c] > 0)) continue;
    strange.push_back(c < names.size() ? names[c] : fmt::format("{}", c));
    images += of_test[c];
  }
  if (!strange.empty())
    throw Error(ExitCode::file,
                fmt::format("{} images of {} are of classes without any image in {}: {}", images, test_name, train_name,
                            few_names(strange)),
                "train on a set that has these classes, or leave them out of the test set");
}

}  // namespace seer::eval
