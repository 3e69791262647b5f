// SPDX-License-Identifier: Apache-2.0
#include "linear_problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/eval/classes.hpp"

namespace seer::eval {
namespace {

/// The numbers of the classes among `names` (if there are any) instead of the set's own. Error(file): numbers outside.
data::Targets renumbered(const data::Targets& targets, const LabelledImages& of,
                         const std::vector<std::string>& names) {
  std::map<std::string, std::int32_t> places;
  for (std::size_t c = 0; c < names.size(); ++c) places.emplace(names[c], static_cast<std::int32_t>(c));
  auto out = targets;
  for (auto& value : out.values) {
    if (value < 0 || (!of.classes.empty() && static_cast<std::size_t>(value) >= of.classes.size()))
      throw Error(ExitCode::file, fmt::format("{}: class {} in a set of {} classes", of.name, value, of.classes.size()),
                  "pack the set again");
    if (!names.empty()) value = places.at(of.classes[static_cast<std::size_t>(value)]);
  }
  return out;
}

std::vector<std::int64_t> images_of_classes(const LabelledImages& set, const Images& images) {
  std::vector<std::int64_t> out;
  for (const auto i : images) {
    for (const auto c : set.targets.of(i)) {
      out.resize(std::max(out.size(), static_cast<std::size_t>(c) + 1), 0);
      ++out[static_cast<std::size_t>(c)];
    }
  }
  return out;
}

/// Images that count: those that have a class; with several classes all that decode.
Images counting(const LabelledImages& set, bool several) {
  Images out;
  for (std::size_t i = 0; i < set.targets.images(); ++i)
    if (set.bad[i] == 0 && (several || set.targets.of(i).size() == 1)) out.push_back(i);
  return out;
}

bool has_several(const LabelledImages& set) {
  if (!set.ignored.values.empty()) return true;
  for (std::size_t i = 0; i < set.targets.images(); ++i)
    if (set.targets.of(i).size() > 1) return true;
  return false;
}

/// Chooses among these images by their classes.
Images chosen_of(const Problem& problem, const Images& images, const data::SubsetChoice& choice) {
  data::Targets targets;
  for (const auto i : images) targets.add(problem.train.targets.of(i));
  Images out;
  for (const auto at : data::choose_subset(targets, problem.count, choice, problem.classes)) out.push_back(images[at]);
  return out;
}

}  // namespace

Problem problem_of(const LinearSource& source, const LinearTask& task) {
  Problem out;
  out.train = source.train();
  out.test = source.test();
  auto &train = out.train, &test = out.test;
  const auto names = common_classes(train.classes, train.name, test.classes, test.name);
  out.several = task.targets == "multi" || (task.targets == "auto" && (has_several(train) || has_several(test)));
  out.classes = train.classes;
  out.count = static_cast<std::int64_t>(out.classes.size());
  if (out.classes.empty() && !train.targets.values.empty())
    out.count = *std::ranges::max_element(train.targets.values) + 1;
  for (auto* set : {&train, &test}) {
    set->targets = renumbered(set->targets, *set, names);
    set->ignored = renumbered(set->ignored, *set, names);
  }
  out.train_images = counting(train, out.several);
  out.test_images = counting(test, out.several);
  for (const auto& [set, images] : {std::pair(&train, &out.train_images), std::pair(&test, &out.test_images)})
    if (images->empty() || set->targets.values.empty())
      throw Error(ExitCode::file, fmt::format("{}: no image has a label and decodes", set->name),
                  "pack it with labels");
  require_learnable(train.name, images_of_classes(train, out.train_images), test.name,
                    images_of_classes(test, out.test_images), names);
  for (auto* targets : {&train.targets, &train.ignored, &test.targets, &test.ignored})
    for (auto& value : targets->values)
      if (value >= out.count) value = -1;
  return out;
}

Parts parts_of(const Problem& problem, const LinearTask& task, std::int64_t draw, bool holds, int ranks) {
  auto choice = task.subset;
  choice.seed += static_cast<std::uint64_t>(draw);
  Parts out{choice.takes_all() ? problem.train_images : chosen_of(problem, problem.train_images, choice), {}};
  if (holds) {
    std::vector<std::int64_t> left(static_cast<std::size_t>(problem.count), 0);
    const auto add = [&](std::uint64_t image, std::int64_t by) {
      for (const auto c : problem.train.targets.of(image)) left[static_cast<std::size_t>(c)] += by;
    };
    for (const auto image : out.fit) add(image, 1);
    std::set<std::uint64_t> held;
    for (const auto image : chosen_of(problem, out.fit, {.fraction = 0.1, .per_class = 0, .seed = task.seed})) {
      const auto of = problem.train.targets.of(image);
      if (std::ranges::any_of(of, [&](auto c) { return left[static_cast<std::size_t>(c)] < 2; })) continue;
      add(image, -1);
      held.insert(image);
    }
    out.held.assign(held.begin(), held.end());
    std::erase_if(out.fit, [&](auto image) { return held.contains(image); });
    if (out.held.empty())
      throw Error(ExitCode::input,
                  fmt::format("{}: no image can be held back for the choice of a head: every class has one image",
                              problem.train.name),
                  "use more images, a single head (one of --features, --rates and --decays; --batchnorm off), or "
                  "--selection test");
  }
  if (out.fit.size() < static_cast<std::size_t>(ranks))
    throw Error(ExitCode::input,
                fmt::format("{}: {} training images for {} ranks", problem.train.name, out.fit.size(), ranks),
                "use fewer ranks, or more images");
  return out;
}

ProbeTruth truth_of(const Problem& problem, const LabelledImages& set, std::span<const std::uint64_t> images) {
  ProbeTruth out;
  const auto classes = static_cast<std::size_t>(problem.count);
  if (problem.several) out.several.resize(images.size() * classes);
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (problem.several)
      write_truth(set.targets, set.ignored, images[i], std::span(out.several).subspan(i * classes, classes));
    else
      out.labels.push_back(set.targets.of(images[i])[0]);
  }
  return out;
}

void write_truth(const data::Targets& targets, const data::Targets& ignored, std::size_t image,
                 std::span<std::int8_t> truth) {
  std::ranges::fill(truth, std::int8_t{0});
  const auto set = [&](std::span<const std::int32_t> classes, std::int8_t value) {
    for (const auto c : classes)
      if (c >= 0) truth[static_cast<std::size_t>(c)] = value;
  };
  if (image < ignored.images()) set(ignored.of(image), -1);
  set(targets.of(image), 1);
}

}  // namespace seer::eval
