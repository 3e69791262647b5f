// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/confusion.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace seer::eval {

void Confusion::add(std::span<const std::int32_t> truth, std::span<const std::int32_t> predicted) {
  for (std::size_t i = 0; i < truth.size(); ++i)
    if (truth[i] >= 0) ++counts_[{truth[i], predicted[i]}];
}

void Confusion::sum(const comm::Communicator& comm) {
  const auto mine = cells();
  const auto all = comm.all_gather(std::string(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(Cell)));
  counts_.clear();
  for (const auto& bytes : all) {
    std::vector<Cell> theirs(bytes.size() / sizeof(Cell));
    std::memcpy(theirs.data(), bytes.data(), bytes.size());
    for (const auto& cell : theirs) counts_[{cell.truth, cell.predicted}] += cell.images;
  }
}

std::vector<Confusion::Class> Confusion::per_class(std::int64_t classes) const {
  std::vector<Class> out(static_cast<std::size_t>(classes));
  for (const auto& [pair, images] : counts_) {
    auto& of = out.at(static_cast<std::size_t>(pair.first));
    of.images += images;
    if (pair.first == pair.second) of.right += images;
  }
  return out;
}

std::vector<Confusion::Cell> Confusion::cells() const {
  std::vector<Cell> out;
  for (const auto& [pair, images] : counts_) out.push_back({pair.first, pair.second, images});
  return out;
}

std::vector<Confusion::Cell> Confusion::largest_errors(std::size_t most) const {
  auto out = cells();
  std::erase_if(out, [](const Cell& cell) { return cell.truth == cell.predicted; });
  std::ranges::stable_sort(out, std::greater(), &Cell::images);
  out.resize(std::min(most, out.size()));
  return out;
}

}  // namespace seer::eval
