// SPDX-License-Identifier: Apache-2.0
#include "seer/data/subset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "packed.hpp"
#include "seer/data/source.hpp"

namespace seer::data {
namespace {

std::string class_text(std::size_t number, std::span<const std::string> names) {
  return number < names.size() ? fmt::format("class {}", names[number]) : fmt::format("class number {}", number);
}

std::string text_of(const SubsetChoice& choice) {
  return choice.per_class > 0 ? fmt::format("{} images of each class", choice.per_class)
                              : fmt::format("a fraction of {}", choice.fraction);
}

}  // namespace

std::vector<std::uint64_t> choose_subset(const Targets& classes_of, std::int64_t classes, const SubsetChoice& choice,
                                         std::span<const std::string> names) {
  const std::uint64_t images = classes_of.images();
  const auto none = static_cast<std::size_t>(classes);  // stands for images without a class
  std::vector<std::uint64_t> left(none + 1);            // how many images each class may still choose
  const auto each_class = [&](std::size_t image, const auto& use) {
    for (const auto c : classes_of.of(image)) {
      ensure(c >= 0 && c < classes, "a class outside the set's classes");
      use(static_cast<std::size_t>(c));
    }
    if (classes_of.of(image).empty()) use(none);
  };
  for (std::size_t i = 0; i < images; ++i) each_class(i, [&](std::size_t c) { ++left[c]; });
  for (std::size_t c = 0; c <= none; ++c) {
    if (choice.per_class == 0) {
      // Without the small term, rounding makes 0.07 of 100 images eight images.
      left[c] = static_cast<std::uint64_t>(std::ceil(choice.fraction * static_cast<double>(left[c]) - 1e-9));
    } else if (c == none) {
      left[c] = 0;
    } else if (const auto wanted = static_cast<std::uint64_t>(choice.per_class); left[c] < wanted) {
      throw Error(ExitCode::input,
                  fmt::format("{} has {} images, wanted {} of each class", class_text(c, names), left[c], wanted),
                  "choose fewer images of each class, or leave the class out");
    } else {
      left[c] = wanted;
    }
  }
  std::vector<std::uint64_t> chosen;
  for (std::uint64_t place = 0; place < images; ++place) {
    const auto image = permute(place, images, choice.seed);
    bool wanted = false;
    each_class(image, [&](std::size_t c) {
      if (left[c] == 0) return;
      --left[c];
      wanted = true;
    });
    if (wanted) chosen.push_back(image);
  }
  if (chosen.empty())
    throw Error(ExitCode::input, fmt::format("{} leaves none of {} images", text_of(choice), images),
                "choose more, or use a set with labels");
  std::ranges::sort(chosen);
  return chosen;
}

SubsetChoice subset_choice(const config::Data& data) {
  return {data.fraction, data.per_class, static_cast<std::uint64_t>(data.subset_seed)};
}

DataSet subset_of(const DataSet& whole, const SubsetChoice& choice, const comm::Communicator& comm) {
  if (choice.takes_all()) return whole;
  std::vector<std::uint64_t> chosen;
  comm::agree(comm, "choosing images", [&] {
    if (!comm.is_root()) return;
    const auto targets = whole.targets(0, whole.images());
    const auto highest = targets.values.empty() ? -1 : std::ranges::max(targets.values);
    const auto classes = std::max<std::int64_t>(static_cast<std::int64_t>(whole.classes().size()), highest + 1);
    chosen = choose_subset(targets, classes, choice, whole.classes());
    if (chosen.size() < static_cast<std::size_t>(comm.size()))
      throw Error(ExitCode::input,
                  fmt::format("{} leaves {} images of {} for {} ranks", text_of(choice), chosen.size(), whole.images(),
                              comm.size()),
                  "choose more images, or use fewer ranks");
  });
  share(comm, chosen);
  return whole.subset(std::move(chosen));
}

}  // namespace seer::data
