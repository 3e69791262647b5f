// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/feature_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::eval {

std::string FeatureInfo::name() const {
  return file.empty() ? data : fmt::format("{} (features of {})", file, data);
}

std::string preparation(const Recipe& recipe) {
  if (recipe.resize < 0 || recipe.crop < 0) return "not known";
  if (recipe.crop == 0) return fmt::format("whole, longer side at most {} pixels", recipe.resize);
  if (recipe.resize == 0) return fmt::format("whole, squashed to {0} x {0} pixels", recipe.crop);
  return fmt::format("shorter side {} pixels, crop {}", recipe.resize, recipe.crop);
}

std::vector<FeatureColumns> columns_of(const FeatureInfo& info) {
  if (!info.columns.empty()) return info.columns;
  return {{.feature = info.layer, .begin = 0, .width = info.dimension}};
}

void require_different(const comm::Communicator& comm, const std::string& name,
                       std::initializer_list<const FeatureTable*> tables, const FeatureColumns& columns) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto width = static_cast<std::size_t>(columns.width);
  std::vector<float> low(width, kInfinity), high(width, -kInfinity);
  for (const auto* table : tables) {
    for (std::size_t row = 0; row < table->rows(); ++row) {
      if (table->bad[row] != 0) continue;
      const auto* values = &table->values[row * static_cast<std::size_t>(table->info.dimension)] + columns.begin;
      for (std::size_t j = 0; j < width; ++j) {
        low[j] = std::min(low[j], values[j]);
        high[j] = std::max(high[j], values[j]);
      }
    }
  }
  comm.all_reduce(std::span(low), comm::Op::min);
  comm.all_reduce(std::span(high), comm::Op::max);
  if (low != high) return;
  throw Error(ExitCode::numerics, fmt::format("{}: the features of all images are equal", name),
              "this network has collapsed; no image is nearer than others")
      .as_agreed();
}

FeatureTable only(const FeatureTable& table, const FeatureColumns& columns) {
  if (columns.width == table.info.dimension) return table;
  FeatureTable out;
  out.info = table.info;
  out.info.layer = columns.feature;
  out.info.columns.clear();
  out.info.dimension = columns.width;
  out.first = table.first;
  out.values.reserve(table.rows() * static_cast<std::size_t>(columns.width));
  for (auto row = table.values.begin(); row != table.values.end(); row += table.info.dimension)
    out.values.insert(out.values.end(), row + columns.begin, row + columns.begin + columns.width);
  out.labels = table.labels;
  out.index = table.index;
  out.bad = table.bad;
  out.checksum = table.checksum;
  out.targets = table.targets;
  out.ignored = table.ignored;
  return out;
}

void FeatureTable::append(const FeatureTable& rows) {
  const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  add(values, rows.values);
  add(labels, rows.labels);
  add(index, rows.index);
  add(bad, rows.bad);
  add(checksum, rows.checksum);
  for (std::size_t i = 0; i < rows.targets.images(); ++i) targets.add(rows.targets.of(i));
  for (std::size_t i = 0; i < rows.ignored.images(); ++i) ignored.add(rows.ignored.of(i));
}

std::string time_left(const Eta& eta) {
  const auto seconds = eta.seconds_left();
  return seconds && *seconds > 0 ? fmt::format(", {} left", duration_text(*seconds)) : "";
}

std::int64_t for_each_batch(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                            const std::string& what,
                            const std::function<std::vector<float>(const data::EvalBatch&)>& features_of,
                            const Sink& sink) {
  std::int64_t bad = 0;
  const bool several =
      std::ranges::any_of(data.shards(), [](const auto& shard) { return shard.target_begin_offset != 0; });
  comm::agree(comm, "features", [&] {
    const std::uint64_t first = slice_begin(data.images(), comm.rank(), comm.size());
    const std::uint64_t last = slice_begin(data.images(), comm.rank() + 1, comm.size());
    if (first == last) return;
    data::EvalReader reader(data, first, last, options);
    std::uint64_t done = 0;
    const Clock clock;
    Eta eta(static_cast<double>(last - first));
    while (const auto* batch = reader.next()) {
      const auto count = static_cast<std::uint64_t>(batch->images);
      sink({.info = {},
            .first = first + done,
            .values = features_of(*batch),
            .labels = batch->labels,
            .targets = several ? data.targets(first + done, count) : data::Targets(),
            .ignored = several ? data.ignored(first + done, count) : data::Targets(),
            .index = batch->indices,
            .bad = batch->bad,
            .checksum = checksums(data, first + done, count)});
      done += count;
      eta.done(static_cast<double>(count));
      log::progress(fmt::format("{}: {}/{} images, {:.1f} images/s{}", what,
                                std::min(done * static_cast<std::uint64_t>(comm.size()), data.images()), data.images(),
                                static_cast<double>(done) * comm.size() / clock.seconds(), time_left(eta)));
    }
    bad = reader.bad_images();
    ensure(done == last - first, "the evaluation reader handed out every image of its slice");
  });
  log::finish_progress();
  return comm.all_reduce(bad, comm::Op::sum);
}

FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options) {
  FeatureTable out;
  out.info.source = "raw pixels";
  out.info.data = describe(data);
  out.info.layer = "pixels";
  out.info.classes = data.classes();
  out.info.images = data.images();
  out.info.dimension = side * side * 3;
  auto& recipe = out.info.recipe;
  recipe.weights = recipe.recalibration_data = "none";
  recipe.resize = 0;  // squashed
  recipe.crop = side;
  recipe.mean = "0 0 0";
  recipe.std = "1 1 1";
  recipe.recalibration_images = 0;
  recipe.precision = "fp32";
  out.first = slice_begin(data.images(), comm.rank(), comm.size());
  auto raw = options;
  raw.raw_side = side;
  for_each_batch(
      comm, data, raw, "raw pixels of " + out.info.data,
      [](const data::EvalBatch& batch) {
        return std::vector<float>(batch.pixels.f32(), batch.pixels.f32() + batch.pixels.elems());
      },
      [&](const FeatureTable& rows) { out.append(rows); });
  return out;
}

std::string describe(const data::DataSet& data) {
  const auto& shards = data.shards();
  return shards.size() == 1 ? shards.front().path
                            : fmt::format("{} and {} more shards", shards.front().path, shards.size() - 1);
}

namespace {

// Empty if unknown.
std::string text(const std::string& value) {
  return value;
}
std::string text(std::int64_t value) {
  return value < 0 ? "" : fmt::format("{}", value);
}

/// Meaning and value of each field.
std::vector<std::pair<std::string, std::string>> texts(const Recipe& recipe) {
  std::vector<std::pair<std::string, std::string>> out;
  visit_fields(recipe, [&](auto*, auto* meaning, const auto& value) { out.emplace_back(meaning, text(value)); });
  return out;
}

}  // namespace

void require_alike(const FeatureInfo& train, const std::string& train_name, const FeatureInfo& test,
                   const std::string& test_name) {
  std::vector<std::string> differ, unknown;
  if (train.layer != test.layer) differ.push_back(fmt::format("layer {} against {}", train.layer, test.layer));
  if (train.layer == test.layer && (train.dimension != test.dimension || train.columns != test.columns))
    differ.push_back(fmt::format("columns of {}: {} against {}", train.layer, train.dimension, test.dimension));
  const auto of_train = texts(train.recipe), of_test = texts(test.recipe);
  for (std::size_t i = 0; i < of_train.size(); ++i) {
    const auto& [name, x] = of_train[i];
    const auto& y = of_test[i].second;
    if (name.empty() || (x == y && !x.empty())) continue;
    if (x.empty() || y.empty())
      unknown.push_back(name);
    else
      differ.push_back(fmt::format("{} {} against {}", name, x, y));
  }
  if (!differ.empty()) {
    throw Error(ExitCode::input,
                fmt::format("{} (from {}) and {} (from {}) were not computed alike: {}", train_name, train.source,
                            test_name, test.source, fmt::join(differ, "; ")),
                "compute both with the same seer features options; --recalibrate-from takes the images of one set for "
                "both");
  }
  if (unknown.empty()) return;
  log::warn(
      fmt::format("{} (from {}) and {} (from {}): a table of an older version lacks what must be compared: {}; compute "
                  "both again to "
                  "be sure that they were computed alike",
                  train_name, train.source, test_name, test.source, fmt::join(unknown, ", ")));
}

}  // namespace seer::eval
