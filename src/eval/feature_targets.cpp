// SPDX-License-Identifier: Apache-2.0
// Classes of images that may have several, in a features file.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "seer/base/error.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

using h5::Type;

void SeveralClasses::add(const FeatureTable& rows) {
  if (targets_.images() == 0) first_ = rows.first;
  for (std::size_t i = 0; i < rows.targets.images(); ++i) targets_.add(rows.targets.of(i));
  for (std::size_t i = 0; i < rows.ignored.images(); ++i) ignored_.add(rows.ignored.of(i));
}

void SeveralClasses::write(const comm::Communicator& comm, h5::File& file, std::uint64_t images) const {
  for (const auto& [name, values] : {std::pair("/target", &targets_), std::pair("/ignored", &ignored_)}) {
    const auto counts = comm.all_gather(static_cast<std::int64_t>(values->values.size()));
    const auto all = static_cast<std::uint64_t>(std::reduce(counts.begin(), counts.end()));
    if (all == 0) continue;
    const auto before = static_cast<std::uint64_t>(std::reduce(counts.begin(), counts.begin() + comm.rank()));
    const auto begin_name = fmt::format("{}_begin", name);
    file.create_dataset(name, Type::i32, {all});
    file.create_dataset(begin_name, Type::u64, {images + 1});
    auto begins = values->begins;
    for (auto& begin : begins) begin += before;
    if (first_ + values->images() != images) begins.pop_back();  // the next rank's first
    file.write(name, Type::i32, before, values->values.size(), values->values.data());
    if (values->images() > 0) file.write(begin_name, Type::u64, first_, begins.size(), begins.data());
  }
}

void SeveralClasses::read(const h5::File& file, std::uint64_t count, FeatureTable& table) {
  for (const auto& [name, into] : {std::pair("/target", &table.targets), std::pair("/ignored", &table.ignored)}) {
    if (count == 0 || !file.exists(name)) continue;
    const auto begin_name = fmt::format("{}_begin", name);
    const auto all = file.elements(name), rows = file.elements(begin_name);
    into->begins.resize(count + 1);
    if (rows == table.info.images + 1) file.read(begin_name, Type::u64, table.first, count + 1, into->begins.data());
    const auto first = into->begins.front(), last = into->begins.back();
    if (rows != table.info.images + 1 || !std::ranges::is_sorted(into->begins) || last > all)
      throw Error(ExitCode::file, fmt::format("{}: {} does not divide the {} entries of {} among {} rows", file.path(),
                                              begin_name, all, name, table.info.images));
    into->values.resize(last - first);
    file.read(name, Type::i32, first, last - first, into->values.data());
    for (auto& begin : into->begins) begin -= first;
  }
}

}  // namespace seer::eval
